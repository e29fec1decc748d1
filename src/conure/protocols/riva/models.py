"""`GetRivaSpeechRecognitionConfig`: the models, listed separately for live audio and recordings."""

from __future__ import annotations

from collections.abc import Sequence

from conure.engine.plan import ModelInfo
from conure.errors import UnknownModel
from conure.protocols.riva.riva_asr_pb2 import RivaSpeechRecognitionConfigResponse

__all__ = ["list_models"]

Config = RivaSpeechRecognitionConfigResponse.Config


def list_models(models: Sequence[ModelInfo], name: str = "") -> RivaSpeechRecognitionConfigResponse:
    """Returns all models, or those with this name. Raises UnknownModel."""
    matching = [model for model in models if name in ("", model.name)]
    if not matching:
        raise UnknownModel(f"unknown model {name!r}", f"available models: {', '.join(model.name for model in models)}")
    online = [_config(model, "online") for model in matching if model.latencies]
    return RivaSpeechRecognitionConfigResponse(
        model_config=online + [_config(model, "offline") for model in matching if model.supports_clips]
    )


def _config(model: ModelInfo, kind: str) -> Config:
    """Returns the parameters as strings; no languages if the model does not declare them."""
    parameters = {
        "type": kind,
        "streaming": str(kind == "online"),
        "language_code": ",".join(model.languages),
        "sample_rate": "16000",
    }
    return Config(model_name=model.name, parameters=parameters)
