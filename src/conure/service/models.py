"""Which of the engine's models a client means."""

from __future__ import annotations

from collections.abc import Sequence

from conure.engine.handle import EngineHandle
from conure.engine.plan import ModelCard
from conure.errors import BadOption, UnknownModel
from conure.models import catalog

__all__ = ["Models", "live_name"]

TINY, TINY_LIVE = "tiny", "tiny-live"


def live_name(name: str) -> str:
    """`tiny` stands for both tiny models."""
    return TINY_LIVE if name == TINY else name


class Models:
    """Names as people write them: those of the catalogue, aliases, and what the server was started with."""

    def __init__(self, handle: EngineHandle, live: Sequence[str], clips: Sequence[str]) -> None:
        self._handle = handle
        self._live, self._clips = tuple(live), tuple(clips)

    def live(self, name: str | None) -> ModelCard:
        """For streams; the server's default where there is no name. Raises UnknownModel or BadOption."""
        meant = TINY_LIVE if name == TINY and TINY_LIVE in self._live else name
        return self._find(meant, self._live, "live audio")

    def clips(self, name: str | None) -> ModelCard:
        """The same for recordings."""
        return self._find(name, self._clips, "recordings")

    def _find(self, name: str | None, served: Sequence[str], use: str) -> ModelCard:
        models = self._handle.models
        cards = {models[asked].name: models[asked] for asked in served}
        if not cards:
            raise UnknownModel(f"this server has no model for {use}")
        if name is None:
            return next(iter(cards.values()))
        entry = catalog.find(name)
        meant = entry.name if entry else name
        if meant in served:
            return models[meant]
        if meant in cards:
            return cards[meant]
        if meant in models:
            raise BadOption(f"{name} is not for {use} on this server", f"for that it has: {', '.join(cards)}")
        raise UnknownModel(f"this server has no model {name!r}", f"for {use} it has: {', '.join(cards)}")
