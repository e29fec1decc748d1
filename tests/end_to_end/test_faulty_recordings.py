"""Words of recordings whose containers have wrong sizes, change in mid-file or hold several tracks."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conure
from conure.audio.files import open_audio
from conure.service.recognizer import Recognizer
from tests.audio.recordings import encode
from tests.audio.test_sizes import wav
from tests.audio.test_tracks import mixed

DEMO = Path(__file__).parents[1] / "data" / "demo.flac"
SAID = "seven three nine zero one five eight two"
INFO = b"LIST" + struct.pack("<I", 4_000) + b"INFO" + bytes(range(256)) * 15 + bytes(156)


@pytest.fixture(scope="module")
def tiny() -> Recognizer:
    return conure.load("tiny")


def speech(rate: int = 16_000) -> Any:
    """float32 [1, n]"""
    with open_audio(DEMO, rate=rate) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def pcm() -> bytes:
    return bytes((speech()[0] * 32_767).astype("<i2").tobytes())


RECORDINGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "wrapped sizes": (lambda: wav(pcm(), 40_000, 40_036), SAID),
    "sizes of the first buffer": (lambda: wav(pcm(), 3_200, 3_236), SAID),
    "a size that is the head's": (lambda: wav(pcm(), 44, 36), SAID),
    "no size": (lambda: wav(pcm(), 0, 0, INFO), SAID),
    "a tag behind": (lambda: wav(pcm(), after=INFO), SAID),
    "glued": (lambda: wav(pcm()) + wav(pcm()), f"{SAID} {SAID}"),
    "glued, of two rates": (
        lambda: wav(pcm()) + encode(np.repeat(speech(44_100), 2, axis=0), 44_100),
        f"{SAID} {SAID}",
    ),
    "a rate that rises": (
        lambda: encode(speech(44_100), 44_100, "adts", "aac") + encode(speech(48_000), 48_000, "adts", "aac"),
        f"{SAID} {SAID}",
    ),
    "a silent first track": (lambda: mixed(np.zeros_like(speech()), speech(), container="mp4"), SAID),
    "a default second track": (lambda: mixed(speech()[:, ::-1], speech(), default=2), SAID),
}


@pytest.mark.parametrize("kind", RECORDINGS)
def test_all_words_are_transcribed(tiny: Recognizer, kind: str) -> None:
    make, said = RECORDINGS[kind]
    assert tiny.transcribe(make()).text == said


def test_a_track_may_be_chosen(tiny: Recognizer, tmp_path: Path) -> None:
    recording = tmp_path / "two.mkv"
    recording.write_bytes(mixed(speech(), np.zeros_like(speech()), speech()[:, ::-1]))
    assert tiny.transcribe(recording, track=1).text == SAID
    assert tiny.transcribe(recording, track=2).text == ""
    assert [one.text for one in tiny.transcribe_many([recording, recording], track=1)] == [SAID, SAID]  # type: ignore[union-attr]
    [refused] = tiny.transcribe_many([recording], track=4)
    assert isinstance(refused, conure.ConureError)
    assert (refused.code, refused.hint) == ("no_such_track", "choose one of its tracks: 1 (aac); 2 (aac); 3 (aac)")


def test_a_batch_of_odd_names(tmp_path: Path) -> None:
    """What cannot be read or written is told, and costs nothing else."""
    folder = bytes(tmp_path) + b"/in/"
    (tmp_path / "in").mkdir()
    names = (b"caf\xe9.wav", b"new\nline.wav", b"red\x1b[31m.wav", "鵝".encode() * 80 + b".wav", b"x" * 251 + b".wav")
    for name in names:
        with open(folder + name, "wb") as file:
            file.write(wav(pcm()))
    (tmp_path / "in" / "bad.wav").write_bytes(b"no audio at all")
    (tmp_path / "in" / "link.wav").symlink_to("gone.wav")
    (tmp_path / "in" / "folder.wav").mkdir()
    command = [sys.executable, "-m", "conure", "transcribe", "--model", "tiny", "in", "-f", "json", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr
    written = {bytes(path.name, "utf-8", "surrogateescape"): path for path in (tmp_path / "out").iterdir()}
    assert set(written) == {name.removesuffix(b".wav") + b".json" for name in names[:-1]}
    assert all(f'"text": "{SAID}"' in path.read_text() for path in written.values())
    lines = done.stderr.decode().splitlines()
    assert next(line for line in lines if line.startswith("error:")).startswith("error: in/bad.wav: is not audio")
    assert any("link.wav: No such file" in line for line in lines)
    assert any("cannot be written: File name too long" in line for line in lines)
    assert b"\x1b" not in done.stderr


def test_odd_names_on_stdout(tmp_path: Path) -> None:
    for name in (b"caf\xe9.wav", b"new\nline.wav", b"red\x1b[31m.wav"):
        with open(bytes(tmp_path) + b"/" + name, "wb") as file:
            file.write(wav(pcm(), 0xFFFF, 0))
    command = [sys.executable, "-m", "conure", "transcribe", "--model", "tiny", "--verbose", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    headings = [line for line in done.stdout.decode().splitlines() if line.startswith("==>")]
    assert headings == ["==> caf\\xe9.wav <==", "==> new line.wav <==", "==> red\\x1b[31m.wav <=="]
    assert done.stdout.decode().count(SAID) == 3
    assert b"\x1b" not in done.stderr
