"""Model names in requests of clients."""

from __future__ import annotations

from typing import cast

import pytest

from conure.engine.client import EngineClient
from conure.errors import BadOption, UnknownModel
from conure.service.model_directory import ModelDirectory
from tests.service.fake_engine import Engine

MODELS = ModelDirectory(cast(EngineClient, Engine()), ["live"], ["clips"])


@pytest.mark.parametrize(
    "name",
    [
        *("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "gpt-transcribe"),
        *("gpt-live-transcribe", "gpt-realtime-whisper", "nova-3", "nova-2-general", "flux-general-en", "scribe_v2"),
        *("auto", "default", "large-v3", "large-v3-turbo", "turbo", "base.en", "tiny.en", "tiny", "distil-large-v3"),
        *("openai/whisper-large-v3", "Systran/faster-whisper-large-v3", "Systran/faster-distil-whisper-small.en"),
        *(
            "distil-whisper/distil-large-v3",
            "mlx-community/whisper-turbo",
            "ggml-whisper-base",
            "WHISPER-1",
            " Nova-3 ",
        ),
    ],
)
def test_models_of_other_services_are_the_servers_own(name: str) -> None:
    assert MODELS.find_live_model(name).name == "live"
    assert MODELS.find_file_model(name).name == "clips"


def test_the_first_is_the_default() -> None:
    assert MODELS.find_live_model(None).name == "live"
    assert MODELS.find_file_model(None).name == "clips"


@pytest.mark.parametrize("name", ["clips", "CLIPS", " clips ", ""])
def test_letters_and_blanks_do_not_matter(name: str) -> None:
    assert MODELS.find_file_model(name).name == "clips"
    assert not name.strip() or MODELS.is_known(name.strip())


def test_catalog_models_are_known_even_if_not_served() -> None:
    """Under the name of who has made another form of it; then it is that model that is meant, and no other."""
    with pytest.raises(UnknownModel, match="no model 'mlx-community"):
        MODELS.find_file_model("mlx-community/parakeet-tdt-0.6b-v3")
    served = Engine()
    served.models_by_name["parakeet-tdt-0.6b-v3"] = served.models_by_name["clips"]
    models = ModelDirectory(cast(EngineClient, served), ["live"], ["parakeet-tdt-0.6b-v3"])
    assert models.find_file_model("mlx-community/Parakeet-TDT-0.6b-v3") is served.models_by_name["clips"]


def test_other_names_are_refused() -> None:
    with pytest.raises(UnknownModel, match="no model 'gpt-5'"):
        MODELS.find_live_model("gpt-5")
    with pytest.raises(BadOption, match="clips is not for live audio"):
        MODELS.find_live_model("clips")


def test_known_names() -> None:
    assert MODELS.is_known("parakeet-tdt-0.6b-v3")
    assert MODELS.is_known("live")
    assert not MODELS.is_known("parakeet-1.1b-en-US-asr-streaming-silero-vad-sortformer")
