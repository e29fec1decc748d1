"""Resolves model names of clients to models of the engine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conure.engine.client import EngineClient
from conure.engine.plan import ModelInfo
from conure.errors import BadOption, UnknownModel
from conure.models import catalog

__all__ = ["ModelDirectory", "live_model_name"]

TINY, TINY_LIVE = "tiny", "tiny-live"

FOREIGN_NAMES = re.compile(
    r"auto|default|"
    r"((distil|faster|faster-distil|ggml)-)?whisper([-_.].*)?|"
    r"(distil-)?(tiny|base|small|medium|large)(-v[0-9])?(-turbo)?([.]en)?|turbo|"
    r"gpt-(4o-)?(mini-)?(live-)?transcribe(-.*)?|gpt-realtime(-.*)?|"
    r"(nova|flux|enhanced|base|general|scribe|chirp|universal)([-_].*)?"
)
"""Model names of other services, in lower case and without an owner (`openai/`, `systran/`). They mean the default
model of the server. `tiny` is also a Conure model, which takes precedence on a server that has it."""


def live_model_name(name: str) -> str:
    """The live model of a name: `tiny` means both tiny models."""
    return TINY_LIVE if name == TINY else name


class ModelDirectory:
    """Accepts names and aliases of the catalog, and the names that the server was started with, in any case."""

    def __init__(self, engine: EngineClient, live: Sequence[str], files: Sequence[str]) -> None:
        """`live`, `files`: names of the models for live audio and for recordings, the default first."""
        self._engine = engine
        self._live, self._files = tuple(live), tuple(files)

    @property
    def live_models(self) -> tuple[ModelInfo, ...]:
        """Models for streams, the default first."""
        return tuple(dict.fromkeys(self._engine.models_by_name[name] for name in self._live))

    def find_live_model(self, name: str | None) -> ModelInfo:
        """A model for streams; the default if there is no name. Raises UnknownModel or BadOption."""
        is_tiny = name is not None and name.strip().lower() == TINY
        return self._find(TINY_LIVE if is_tiny and TINY_LIVE in self._live else name, self._live, "live audio")

    def find_file_model(self, name: str | None) -> ModelInfo:
        """A model for recordings; as `find_live_model`."""
        return self._find(name, self._files, "recordings")

    @property
    def all_models(self) -> tuple[ModelInfo, ...]:
        """All models of the server."""
        return self._engine.model_infos

    def is_known(self, name: str) -> bool:
        """Whether it names a model of this server or of the catalog."""
        return catalog.find(name) is not None or self._engine_name(name) is not None

    def _engine_name(self, name: str) -> str | None:
        """The engine's spelling of a model name, which is compared without case."""
        models = self._engine.models_by_name
        return name if name in models else {known.lower(): known for known in models}.get(name.lower())

    def _find(self, name: str | None, served: Sequence[str], use: str) -> ModelInfo:
        models = self._engine.models_by_name
        candidates = {models[key].name: models[key] for key in served}
        if not candidates:
            raise UnknownModel(f"this server has no model for {use}")
        name = name.strip() if name else None
        if not name:
            return next(iter(candidates.values()))
        base = name.rpartition("/")[2].lower()
        entry = catalog.find(name) or catalog.find(base)
        resolved = self._engine_name(name) or (entry.name if entry else name)
        if resolved in served:
            return models[resolved]
        if resolved in candidates:
            return candidates[resolved]
        if not self._engine_name(name) and FOREIGN_NAMES.fullmatch(base):
            return next(iter(candidates.values()))
        if resolved in models:
            raise BadOption(f"{name} is not for {use} on this server", f"for that it has: {', '.join(candidates)}")
        raise UnknownModel(f"this server has no model {name!r}", f"for {use} it has: {', '.join(candidates)}")
