"""The `info` message: description of the models for live audio."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from conure.engine.plan import ModelInfo
from conure.models import catalog
from conure.service.model_directory import ModelDirectory

__all__ = ["server_info"]

HUB = "https://huggingface.co/"
OTHER_DOMAINS = ("tts", "handle", "intent", "wake", "mic", "snd")


def server_info(models: ModelDirectory) -> dict[str, Any]:
    program = {
        "name": "conure",
        "description": "Speech to text on your own machine",
        "attribution": {"name": "Conure", "url": ""},
        "installed": True,
        "version": metadata.version("conure"),
        "supports_transcript_streaming": True,
        "requires_external_vad": True,
        "models": [_model(model) for model in models.live_models],
    }
    return {"asr": [program]} | {domain: [] for domain in OTHER_DOMAINS}


def _model(model: ModelInfo) -> dict[str, Any]:
    entry = catalog.find(model.name)
    repository = entry.repository if entry else ""
    return {
        "name": model.name,
        "description": ", ".join((model.name, *entry.abilities)) if entry else model.name,
        "attribution": {
            "name": repository.partition("/")[0] or "Conure",
            "url": HUB + repository if repository else "",
        },
        "installed": True,
        "version": None,
        "languages": list(model.languages),
    }
