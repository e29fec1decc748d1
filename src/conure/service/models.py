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
        return self._find(live_name(name) if name else None, self._live, "live audio")

    def clips(self, name: str | None) -> ModelCard:
        """The same for recordings."""
        return self._find(name, self._clips, "recordings")

    def _find(self, name: str | None, served: Sequence[str], use: str) -> ModelCard:
        cards = {self._handle.models[asked].name: self._handle.models[asked] for asked in served}
        if not cards:
            raise UnknownModel(f"this server has no model for {use}")
        if name is None:
            return next(iter(cards.values()))
        entry = catalog.find(name)
        found = self._handle.models.get(entry.name if entry else name)
        if found is None:
            raise UnknownModel(f"this server has no model {name!r}", f"for {use} it has: {', '.join(cards)}")
        if found.name not in cards:
            raise BadOption(f"{name} is not for {use} on this server", f"for that it has: {', '.join(cards)}")
        return found
