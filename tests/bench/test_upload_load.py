"""Recordings take the time that live streams leave: with the clip lane always full, streams are in time as without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.sample_speech import voices
from conure.bench.server import Server, start_server
from conure.bench.trial import Load, Trial, hear_alone, try_load
from conure.bench.upload_load import uploading

DIGITS = Path(__file__).parents[1] / "data" / "demo.flac"
LATENCY = 320
STREAMS, UPLOADS = 4, 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(["--model", "tiny"]) as server:
        yield server


def test_clips_never_make_a_stream_late(server: Server) -> None:
    said = voices(DIGITS, 8.0, 2)
    asked = PacedStreamSettings(server.stream_url, LATENCY, packet_ms=40)
    load = Load(asked, said, 1.0, hear_alone(asked, said), promise=1.0)
    without = try_load(server, load, STREAMS)
    with uploading(server, said[0] * 4, UPLOADS) as uploads:
        beside = try_load(server, load, STREAMS)
    assert not uploads.errors
    assert len(uploads.texts) == 1  # the words of a recording do not depend on the streams beside it, either
    assert uploads.seconds > 8.0
    for trial in (without, beside):
        assert trial.ends == {"finished": STREAMS}
        assert trial.different == 0
    assert _p90(beside) <= _p90(without) + LATENCY / 1000


def _p90(trial: Trial) -> float:
    assert trial.lag
    return trial.lag.p90
