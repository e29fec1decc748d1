"""The model list of `GET /v1/models`: served models and their aliases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conure.engine.plan import ModelInfo
from conure.errors import BadRequest, UnknownModel
from conure.models import catalog
from conure.protocols.openai.schemas import Model, ModelList
from conure.service.model_directory import ModelDirectory

__all__ = ["describe_model", "list_models"]

FILE_MODEL_ALIASES = ("whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
LIVE_MODEL_ALIASES = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""OpenAI's model names for the same purposes; many programs look for them in the list."""


def list_models(models: ModelDirectory, created: int) -> ModelList:
    """Returns each model, then the aliases."""
    listed = {model.name: _model(model.name, model, created) for model in models.all_models}
    for name, model in _aliases(models):
        listed.setdefault(name, _model(name, model, created))
    return ModelList(data=list(listed.values()))


def describe_model(models: ModelDirectory, name: str, created: int) -> Model:
    """Also finds accepted names that are not listed. Raises UnknownModel."""
    for listed in list_models(models, created).data:
        if listed.id == name:
            return listed
    for find in (models.find_file_model, models.find_live_model) if name.strip() else ():
        if model := _find_or_none(find, name):
            return _model(name, model, created)
    known = ", ".join(model.name for model in models.all_models)
    raise UnknownModel(f"unknown model {name!r}", f"available models: {known}")


def _aliases(models: ModelDirectory) -> Iterator[tuple[str, ModelInfo]]:
    for model in models.all_models:
        entry = catalog.find(model.name)
        for alias in entry.aliases if entry else ():
            yield alias, model
    for find, names in ((models.find_file_model, FILE_MODEL_ALIASES), (models.find_live_model, LIVE_MODEL_ALIASES)):
        for name in names:
            if found := _find_or_none(find, name):
                yield name, found


def _find_or_none(find: Callable[[str], ModelInfo], name: str) -> ModelInfo | None:
    try:
        return find(name)
    except BadRequest:
        return None


def _model(name: str, model: ModelInfo, created: int) -> Model:
    entry = catalog.find(model.name)
    publisher = entry.repository.split("/")[0] if entry else "local"
    return Model(
        id=name,
        created=created,
        owned_by=publisher or "conure",
        root=model.name,
        languages=list(model.languages),
        abilities=list(entry.abilities) if entry else [],
        recordings=model.supports_clips,
        live=bool(model.latencies),
        latencies_ms=list(model.latencies),
    )
