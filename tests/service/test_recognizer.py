"""A recording in, a transcript out, with a checkpoint that NeMo wrote."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conure.engine.backends.registry import choose_device
from conure.errors import AudioTooLong, BadOption, UnsupportedLanguage
from conure.service.languages import prompt_id_for
from conure.service.recognizer import Recognizer, load
from tests.parity.references import FOLDER, recordings, reference

RATE = 16_000


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load(FOLDER / "tdt.nemo")


def clip(row: int) -> np.ndarray:
    samples, lengths = recordings()
    return samples[row, : lengths[row]].numpy()


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_a_short_clip_equals_the_output_of_the_network(recognizer: Recognizer) -> None:
    transcript = recognizer.transcribe(wav(clip(0)))
    assert transcript.text == reference("tdt").told["texts"][0]
    assert transcript.duration == pytest.approx(len(clip(0)) / RATE, abs=1e-3)
    assert transcript.model == "tdt"
    assert transcript.language is None
    assert [word.text for word in transcript.words] == reference("tdt").told["words"][0]
    assert all(0 <= word.start < word.end <= transcript.duration for word in transcript.words)
    assert all(0 <= word.confidence <= 1 for word in transcript.words)


def test_a_path_bytes_and_a_file_give_the_same(recognizer: Recognizer, tmp_path: Path) -> None:
    data = wav(clip(1))
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    transcripts = [recognizer.transcribe(source) for source in (path, str(path), data, io.BytesIO(data))]
    assert len(set(transcripts)) == 1


def test_channels_apart(recognizer: Recognizer) -> None:
    left, right = clip(0)[:30_000], clip(1)[:30_000]
    both = recognizer.transcribe_channels(wav(np.stack([left, right], 1)))
    assert [transcript.channel for transcript in both] == [0, 1]
    assert [transcript.text for transcript in both] == [recognizer.transcribe(wav(side)).text for side in (left, right)]
    assert both[0].text != both[1].text


def test_silence_is_an_empty_transcript(recognizer: Recognizer) -> None:
    transcript = recognizer.transcribe(wav(np.zeros(5 * RATE, np.float32)))
    assert transcript.text == ""
    assert transcript.segments == ()
    assert transcript.duration == 5.0


def test_a_limit_on_length(recognizer: Recognizer) -> None:
    with pytest.raises(AudioTooLong):
        recognizer.transcribe(wav(clip(0)), max_seconds=1.0)


def test_progress_reaches_the_end(recognizer: Recognizer) -> None:
    seen: list[tuple[float, float | None]] = []
    recognizer.transcribe(wav(clip(0)), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == pytest.approx(len(clip(0)) / RATE, abs=0.01)
    assert seen[-1][1] == pytest.approx(len(clip(0)) / RATE, abs=0.1)


def test_a_prompted_model_takes_a_language_and_refuses_others() -> None:
    recognizer = load(FOLDER / "nemotron_prompt.nemo")
    config = recognizer.checkpoint.config
    slots = dict(config.prompt_ids)
    assert prompt_id_for("m", None, config.prompt_ids) == slots["auto"]
    assert prompt_id_for("m", "de", config.prompt_ids) == slots["de-DE"]
    assert prompt_id_for("m", "NO", config.prompt_ids) == slots["no"]
    with pytest.raises(UnsupportedLanguage, match="'tlh'"):
        recognizer.transcribe(wav(clip(0)), language="tlh")


def test_devices_that_are_not_there() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(BadOption, match="'tpu'"):
        choose_device("tpu")
    with pytest.raises(BadOption, match="cuda:99"):
        choose_device("cuda:99")
