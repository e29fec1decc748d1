"""`conure stream` with a small real server."""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conure.cli.latency import Latencies, percentile
from conure.client.protocol import Error, Failed
from tests.cli.conftest import Call
from tests.client.scripted_server import Cut, FakeServer, Script, serving_in_a_thread

Serve = Callable[[Script], FakeServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving_in_a_thread() as start:
        yield start


@pytest.fixture
def samples(folder: Path) -> Any:
    """What is in talk.wav: 0.11 s at 16 kHz."""
    samples = (np.arange(1760) * 17 % 20000 - 10000).astype("<i2")
    with wave.open(str(folder / "talk.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return samples


@pytest.mark.parametrize("pace", ["0", "1", "4"])
def test_lines(call: Call, serve: Serve, samples: Any, pace: str) -> None:
    server = serve(Script())
    done = call("stream", "talk.wav", "--url", server.url, "--pace", pace)
    assert done.code == 0
    received = np.frombuffer(server.heard.audio, "<i2").astype(int)
    assert received.shape == samples.shape
    assert np.abs(received - samples).max() <= 1
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["partial"] * 55 + ["final"]
    assert [lines[0][1], lines[-1][1]] == ["0.00", "0.11"]
    assert lines[-1][3].split() == server.heard.words
    assert all(float(line[2]) >= 0 for line in lines)
    report = done.err.splitlines()
    assert [line.partition(":")[0] for line in report] == ["partials", "finals", "last sample to last final"]
    assert report[1].startswith("finals: 1, lag p50 ")


def test_json(call: Call, serve: Serve, samples: Any) -> None:
    server = serve(Script([Cut("read", 5)]))
    line = (
        f"stream talk.wav --url {server.url} --pace 0 -f json --json --finalize --model m --latency 160 --language de"
    )
    done = call(*line.split())
    events = [json.loads(event) for event in done.out.splitlines()]
    assert [event["type"] for event in events] == ["partial"] * 55 + ["final", "marker", "finished"]
    assert all(("lag" in event) == (event["type"] in ("partial", "final")) for event in events)
    log, summary = (json.loads(line) for line in done.err.splitlines())
    assert "resumed after" in log["log"]["message"]
    assert summary["summary"]["seconds"] == 0.11
    assert (summary["summary"]["partials"]["count"], summary["summary"]["finals"]["count"]) == (55, 1)
    config = server.heard.config
    assert (config.model, config.latency_ms, config.language) == ("m", 160, "de")


def test_partials_are_rewritten_on_a_terminal(
    call: Call, serve: Serve, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(Script())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    done = call("stream", "talk.wav", "--url", server.url, "--pace", "0")
    parts = done.out.split("\r\x1b[K")
    assert len(parts) == 57
    assert parts[1] == server.heard.words[0]
    assert parts[-1].startswith(" ".join(server.heard.words) + "  (")
    assert done.out.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "error", "hint"),
    [
        (Script(first=Error(message="full", code="busy", retry_after=3)), "error: full", "hint: try again in 3 s"),
        (Script(later=Failed(seq=1, code="x", message="gone", hint="again")), "error: gone", "hint: again"),
    ],
)
def test_errors_of_the_server(call: Call, serve: Serve, samples: Any, script: Script, error: str, hint: str) -> None:
    done = call("stream", "talk.wav", "--url", serve(script).url)
    assert (done.code, done.err.splitlines()) == (1, [error, hint])


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("talk.wav --url ws://127.0.0.1:9", 1, "error: ws://127.0.0.1:9 cannot be reached"),
        ("talk.wav --url localhost", 2, "error: 'localhost' is not the URL of a server"),
        ("gone.wav", 2, "error: gone.wav: no such file"),
        (".", 2, "error: '.' is not a single recording"),
        ("talk.wav --pace -1", 2, "error: "),
        ("", 2, "error: "),
    ],
)
def test_invalid_arguments(call: Call, samples: Any, line: str, code: int, error: str) -> None:
    done = call("stream", *line.split())
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(error)
    assert done.err.splitlines()[1].startswith("hint: ")


def test_lags() -> None:
    lags = Latencies(0.02)
    assert lags.lag_at(0.02, 5.0) is None
    assert lags.last_final_lag() is None
    for number in range(4):
        lags.record_sent(10.0 + number)
    assert [lags.lag_at(seconds, 20.0) for seconds in (0.0, 0.02, 0.021, 0.04, 0.08, 0.5)] == [10, 10, 9, 9, 7, 7]
    lags.last_final = 13.5
    assert lags.last_final_lag() == 0.5


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.9, 1.0)] == [1, 2, 4, 4]
