"""`conure bench` as a process, with the tiny models: its output, its recommendation, and its cleanup."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conure.bench.sample_speech import read_voices
from conure.bench.server import start_server
from conure.bench.upload_load import wav_bytes
from tests.cli.conftest import Call
from tests.waiting import PATIENCE

DIGITS = Path(__file__).parents[1] / "data" / "demo.flac"
BENCH = [sys.executable, "-m", "conure", "bench", "--model", "tiny", "--audio", str(DIGITS)]


def test_the_recommended_command_starts_a_server() -> None:
    """With a target that any machine reaches, only --max-streams limits the streams."""
    load = ["--promise", "60000", "--seconds", "1", "--at-once", "2"]
    line = [*BENCH, "--max-streams", "3", *load, "--price", "3", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"]
    assert result["models"] == ["tiny-live", "tiny"]
    assert result["live"]["streams"] == 3
    assert [trial["fault"] for trial in result["live"]["trials"] if trial["streams"] <= 3] == [None] * 2
    assert result["clips"]["hours_an_hour"] > 0
    assert result["clips"]["dollars_per_hour"] == pytest.approx(3 / result["clips"]["hours_an_hour"])
    assert [sizes.keys() for sizes in result["memory"].values()] == [{"server", "engine"}] * 3
    advice = result["advice"]
    assert (advice["command"], advice["streams"]) == ("conure serve --model tiny --max-streams 2", 2)
    assert advice["dollars_per_stream_hour"] == 1.5
    assert advice["p99"] <= advice["promise"] == 60
    program, command, *flags = shlex.split(advice["command"])
    assert (program, command) == ("conure", "serve")
    with start_server(flags) as server:
        assert [model["name"] for model in server.models()] == result["models"]
        assert server.transcribe(wav_bytes(read_voices(DIGITS, 3.0, 1)[0]))


def to_the_group(process: subprocess.Popen[str]) -> None:
    """As a terminal does on Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("stop", [to_the_group, subprocess.Popen.terminate])
def test_an_interruption_stops_the_server_and_prints_results(
    stop: Callable[[subprocess.Popen[str]], None],
) -> None:
    line = [*BENCH, "--max-streams", "2", "--promise", "60000", "--seconds", "40", "--json"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert any(": estimates " in line for line in process.stderr)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        stop(process)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    result = json.loads(out)
    assert (result["complete"], result["advice"], result["models"]) == (False, None, None)
    assert "Traceback" not in err
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []


def test_recordings_alone(capsys: pytest.CaptureFixture[str], call: Call) -> None:
    done = call(
        "bench", "clips", "--model", "tiny", "--at-once", "2", "--length", "2", "--seconds", "1", "--price", "1"
    )
    assert done.code == 0
    assert "recordings, one at a time" in done.out
    assert "recordings, 2 at once" in done.out
    assert "per hour of recordings, with the machine at $1 per hour" in done.out


def test_errors_are_reported_before_a_server_starts(call: Call, folder: Path) -> None:
    (folder / "file").touch()
    for line, error in (
        ("--latency 0", "latency is 0"),
        ("--promise -5", "promise is -0.005"),
        ("--at-once 0", "at-once is 0"),
        ("--threads 0", "--threads is 0"),
        ("--plot file", "--plot is 'file'"),
        ("clips --url http://127.0.0.1:9 --threads 2", "--threads has no effect on a running server"),
        ("clips --url http://127.0.0.1:9", "no server at"),
    ):
        done = call("bench", *line.split())
        assert (done.code, error in done.err) == (2, True), done.err
