"""Clips only use the time that live streams leave: with a full clip lane, the lag of streams stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.sample_speech import read_voices
from conure.bench.server import Server, start_server
from conure.bench.trial import Load, Trial, transcribe_baseline, try_load
from conure.bench.upload_load import run_uploads

DIGITS = Path(__file__).parents[1] / "data" / "demo.flac"
LATENCY = 320
STREAMS, UPLOADS = 4, 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(["--model", "tiny"]) as server:
        yield server


def test_clips_do_not_delay_streams(server: Server) -> None:
    voices = read_voices(DIGITS, 8.0, 2)
    settings = PacedStreamSettings(server.stream_url, LATENCY, packet_ms=40)
    load = Load(settings, voices, 1.0, transcribe_baseline(settings, voices), promise=1.0)
    without_uploads = try_load(server, load, STREAMS)
    with run_uploads(server, voices[0] * 4, UPLOADS) as uploads:
        with_uploads = try_load(server, load, STREAMS)
    assert not uploads.errors
    assert len(uploads.texts) == 1  # streams do not change the words of a recording, either
    assert uploads.seconds > 8.0
    for trial in (without_uploads, with_uploads):
        assert trial.ends == {"finished": STREAMS}
        assert trial.different == 0
    assert _p90(with_uploads) <= _p90(without_uploads) + LATENCY / 1000


def _p90(trial: Trial) -> float:
    assert trial.lag
    return trial.lag.p90
