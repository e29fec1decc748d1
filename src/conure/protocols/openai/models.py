"""The models of the server, and other names that lead to them, as `GET /v1/models` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conure.engine.plan import ModelInfo
from conure.errors import BadRequest, UnknownModel
from conure.models import catalog
from conure.protocols.openai.schemas import Model, ModelList
from conure.service.model_directory import ModelDirectory

__all__ = ["listed", "named"]

FOR_RECORDINGS = ("whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
FOR_LIVE = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""OpenAI's names of models for the same purposes; many programs look for them in the list."""


def listed(models: ModelDirectory, created: int) -> ModelList:
    """Each model once, then each of the other names that programs look for."""
    found = {card.name: _model(card.name, card, created) for card in models.all_models}
    for name, card in _other_names(models):
        found.setdefault(name, _model(name, card, created))
    return ModelList(data=list(found.values()))


def named(models: ModelDirectory, name: str, created: int) -> Model:
    """Any name that is understood, though it is not listed. Raises UnknownModel."""
    for model in listed(models, created).data:
        if model.id == name:
            return model
    for find in (models.find_file_model, models.find_live_model) if name.strip() else ():
        if card := _found(find, name):
            return _model(name, card, created)
    known = ", ".join(card.name for card in models.all_models)
    raise UnknownModel(f"this server has no model {name!r}", f"it has: {known}")


def _other_names(models: ModelDirectory) -> Iterator[tuple[str, ModelInfo]]:
    for card in models.all_models:
        entry = catalog.find(card.name)
        for alias in entry.aliases if entry else ():
            yield alias, card
    for find, names in ((models.find_file_model, FOR_RECORDINGS), (models.find_live_model, FOR_LIVE)):
        for name in names:
            if found := _found(find, name):
                yield name, found


def _found(find: Callable[[str], ModelInfo], name: str) -> ModelInfo | None:
    try:
        return find(name)
    except BadRequest:
        return None


def _model(name: str, card: ModelInfo, created: int) -> Model:
    entry = catalog.find(card.name)
    publisher = entry.repository.split("/")[0] if entry else "local"
    return Model(
        id=name,
        created=created,
        owned_by=publisher or "conure",
        root=card.name,
        languages=list(card.languages),
        abilities=list(entry.abilities) if entry else [],
        recordings=card.clips,
        live=bool(card.latencies),
        latencies_ms=list(card.latencies),
    )
