from pathlib import Path

import numpy as np
import pytest

from conure.bench.sample_speech import read_voices, sample_recording
from conure.constants import SAMPLE_RATE
from conure.errors import AudioNotFound


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2")


def test_voices_are_one_recording_from_several_places() -> None:
    (whole,) = read_voices(sample_recording(), 11.0, 1)
    first, second = read_voices(sample_recording(), 30.0, 2)
    assert len(samples(first)) == len(samples(second)) == 30 * SAMPLE_RATE
    assert first[: len(whole)] == whole
    middle = len(samples(whole)) // 2
    assert np.array_equal(samples(second)[:middle], samples(first)[middle : 2 * middle])


def test_recordings_of_a_folder_follow_one_another(tmp_path: Path) -> None:
    for name in ("b/two.flac", "a.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(sample_recording().read_bytes())
    (excerpt,) = read_voices(tmp_path, 22.0, 1)
    assert excerpt[: 10 * SAMPLE_RATE * 2] == excerpt[11 * SAMPLE_RATE * 2 : 21 * SAMPLE_RATE * 2]


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioNotFound, match="has no recordings"):
        read_voices(tmp_path, 1.0, 1)
