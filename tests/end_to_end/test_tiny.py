"""The embedded model on speech of unseen speakers: detects any loss of accuracy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import conure
from conure.service.recognizer import Recognizer
from tests.waiting import PATIENCE

DATA = Path(__file__).parents[1] / "data"
STRINGS: dict[str, str] = json.loads((DATA / "strings" / "texts.json").read_text())
MEASURED = 0.061
"""Word error rate over the strings, as docs/performance.md has it."""
MARGIN = 0.02


@pytest.fixture(scope="module")
def tiny() -> Recognizer:
    return conure.load("tiny")


def edits(said: list[str], heard: list[str]) -> int:
    """Words inserted, left out or confused."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def test_error_rate_on_unseen_speakers(tiny: Recognizer) -> None:
    wrong = sum(
        edits(text.split(), tiny.transcribe(DATA / "strings" / name).text.split()) for name, text in STRINGS.items()
    )
    rate = wrong / sum(len(text.split()) for text in STRINGS.values())
    assert rate <= MEASURED + MARGIN


def test_the_demo(tiny: Recognizer) -> None:
    transcript = tiny.transcribe(DATA / "demo.flac")
    assert transcript.text == "seven three nine zero one five eight two"
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts)
    assert all(word.start < word.end <= transcript.duration for word in transcript.words)


def test_onnx_runners_give_the_same_words(tiny: Recognizer, tmp_path: Path) -> None:
    said = tiny.transcribe(DATA / "demo.flac").text
    for runner in ("onnx-fp32", "onnx-int8"):
        assert conure.load("tiny", runner=runner, cache=tmp_path).transcribe(DATA / "demo.flac").text == said


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "conure", "transcribe", "--model", "tiny", str(DATA / "demo.flac"), "gone.wav"]
    done = subprocess.run([*command, "-f", "json"], capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.returncode == 2
    assert "error: gone.wav: no such file" in done.stderr
    told = json.loads(done.stdout)
    assert told["text"].split()[:2] == ["seven", "three"]
    assert told["model"] == "tiny"
