"""Which of the engine's models a client means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conure.engine.handle import EngineHandle
from conure.engine.plan import ModelCard
from conure.errors import BadOption, UnknownModel
from conure.models import catalog

__all__ = ["Models", "live_name"]

TINY, TINY_LIVE = "tiny", "tiny-live"

ELSEWHERE = re.compile(
    r"whisper(-.*)?|gpt-(4o-)?(mini-)?(live-)?transcribe(-.*)?|gpt-realtime(-.*)?|"
    r"(nova|flux|enhanced|base|general|scribe)([-_].*)?"
)
"""Names of models that other services have. Who comes from there means the model that a server has for the purpose."""


def live_name(name: str) -> str:
    """`tiny` stands for both tiny models."""
    return TINY_LIVE if name == TINY else name


class Models:
    """Names as people write them: those of the catalogue, aliases, and what the server was started with."""

    def __init__(self, handle: EngineHandle, live: Sequence[str], clips: Sequence[str]) -> None:
        self._handle = handle
        self._live, self._clips = tuple(live), tuple(clips)

    @property
    def for_live(self) -> tuple[ModelCard, ...]:
        """Those for streams, the server's default first."""
        return tuple(dict.fromkeys(self._handle.models[asked] for asked in self._live))

    def live(self, name: str | None) -> ModelCard:
        """For streams; the server's default where there is no name. Raises UnknownModel or BadOption."""
        meant = TINY_LIVE if name == TINY and TINY_LIVE in self._live else name
        return self._find(meant, self._live, "live audio")

    def clips(self, name: str | None) -> ModelCard:
        """The same for recordings."""
        return self._find(name, self._clips, "recordings")

    @property
    def served(self) -> tuple[ModelCard, ...]:
        """All of the server."""
        return self._handle.cards

    def knows(self, name: str) -> bool:
        """Whether it is the name of a model of this server, or of one that it could have."""
        return catalog.find(name) is not None or name in self._handle.models

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
        if ELSEWHERE.fullmatch(name):
            return next(iter(cards.values()))
        if meant in models:
            raise BadOption(f"{name} is not for {use} on this server", f"for that it has: {', '.join(cards)}")
        raise UnknownModel(f"this server has no model {name!r}", f"for {use} it has: {', '.join(cards)}")
