"""`GetRivaSpeechRecognitionConfig`: the models, once for live audio and once for recordings."""

from __future__ import annotations

from collections.abc import Sequence

from conure.engine.plan import ModelInfo
from conure.errors import UnknownModel
from conure.protocols.riva.riva_asr_pb2 import RivaSpeechRecognitionConfigResponse

__all__ = ["models_of"]

Config = RivaSpeechRecognitionConfigResponse.Config


def models_of(cards: Sequence[ModelInfo], name: str = "") -> RivaSpeechRecognitionConfigResponse:
    """All, or those of that name. Raises UnknownModel."""
    found = [card for card in cards if name in ("", card.name)]
    if not found:
        raise UnknownModel(f"this server has no model {name!r}", f"it has: {', '.join(card.name for card in cards)}")
    online = [_config(card, "online") for card in found if card.latencies]
    return RivaSpeechRecognitionConfigResponse(
        model_config=online + [_config(card, "offline") for card in found if card.clips]
    )


def _config(card: ModelInfo, kind: str) -> Config:
    """All that is known of it, as texts; no language where the model does not tell which it knows."""
    parameters = {
        "type": kind,
        "streaming": str(kind == "online"),
        "language_code": ",".join(card.languages),
        "sample_rate": "16000",
    }
    return Config(model_name=card.name, parameters=parameters)
