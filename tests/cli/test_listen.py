"""`conure listen` with a recording in place of the microphone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tests" / "data" / "demo.flac"
TINY = ROOT / "src" / "conure" / "data" / "tiny"

pytestmark = pytest.mark.torch


def test_a_recording_is_transcribed_live(call: Call) -> None:
    result = call("listen", "--model", str(TINY), "--file", str(DEMO), "--pace", "0", "--format", "json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0
    assert events[-1]["type"] == "finished"
    text = " ".join(event["text"] for event in events if event["type"] == "final")
    assert text.endswith("three nine zero one five eight two")


def test_errors(call: Call) -> None:
    result = call("listen", "--model", str(TINY), "--file", "nothing.wav")
    assert result.code != 0
    assert "nothing.wav" in result.err
    result = call("listen", "--model", str(TINY), "--file", str(DEMO), "--latency", "81")
    assert result.code != 0
    assert "81 ms" in result.err
