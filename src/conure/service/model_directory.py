"""Which of the engine's models a client means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conure.engine.client import EngineClient
from conure.engine.plan import ModelInfo
from conure.errors import BadOption, UnknownModel
from conure.models import catalog

__all__ = ["ModelDirectory", "live_model_name"]

TINY, TINY_LIVE = "tiny", "tiny-live"

ELSEWHERE = re.compile(
    r"auto|default|"
    r"((distil|faster|faster-distil|ggml)-)?whisper([-_.].*)?|"
    r"(distil-)?(tiny|base|small|medium|large)(-v[0-9])?(-turbo)?([.]en)?|turbo|"
    r"gpt-(4o-)?(mini-)?(live-)?transcribe(-.*)?|gpt-realtime(-.*)?|"
    r"(nova|flux|enhanced|base|general|scribe|chirp|universal)([-_].*)?"
)
"""Names of models that other services have, in small letters and without an owner (`openai/`, `systran/`). Clients that
come from there mean the model that a server has for the purpose. `tiny` is a model of ours where the server has it."""


def live_model_name(name: str) -> str:
    """`tiny` stands for both tiny models."""
    return TINY_LIVE if name == TINY else name


class ModelDirectory:
    """Names as people write them: those of the catalogue, aliases, and what the server was started with."""

    def __init__(self, handle: EngineClient, live: Sequence[str], clips: Sequence[str]) -> None:
        self._handle = handle
        self._live, self._clips = tuple(live), tuple(clips)

    @property
    def live_models(self) -> tuple[ModelInfo, ...]:
        """Those for streams, the server's default first."""
        return tuple(dict.fromkeys(self._handle.models[asked] for asked in self._live))

    def find_live_model(self, name: str | None) -> ModelInfo:
        """For streams; the server's default where there is no name. Raises UnknownModel or BadOption."""
        is_tiny = name is not None and name.strip().lower() == TINY
        meant = TINY_LIVE if is_tiny and TINY_LIVE in self._live else name
        return self._find(meant, self._live, "live audio")

    def find_file_model(self, name: str | None) -> ModelInfo:
        """The same for recordings."""
        return self._find(name, self._clips, "recordings")

    @property
    def all_models(self) -> tuple[ModelInfo, ...]:
        """All of the server."""
        return self._handle.cards

    def is_known(self, name: str) -> bool:
        """Whether it is the name of a model of this server, or of one that it could have."""
        return catalog.find(name) is not None or self._served(name) is not None

    def _served(self, name: str) -> str | None:
        """A name by which the engine has a model, whatever letters are capital in it."""
        models = self._handle.models
        return name if name in models else {known.lower(): known for known in models}.get(name.lower())

    def _find(self, name: str | None, served: Sequence[str], use: str) -> ModelInfo:
        models = self._handle.models
        cards = {models[asked].name: models[asked] for asked in served}
        if not cards:
            raise UnknownModel(f"this server has no model for {use}")
        name = name.strip() if name else None
        if not name:
            return next(iter(cards.values()))
        bare = name.rpartition("/")[2].lower()
        entry = catalog.find(name) or catalog.find(bare)
        meant = self._served(name) or (entry.name if entry else name)
        if meant in served:
            return models[meant]
        if meant in cards:
            return cards[meant]
        if not self._served(name) and ELSEWHERE.fullmatch(bare):
            return next(iter(cards.values()))
        if meant in models:
            raise BadOption(f"{name} is not for {use} on this server", f"for that it has: {', '.join(cards)}")
        raise UnknownModel(f"this server has no model {name!r}", f"for {use} it has: {', '.join(cards)}")
