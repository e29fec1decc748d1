"""Measuring recordings with a server. The speed itself is not tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conure.bench.clip_bench import ClipBench, ClipTrial, measure_clips
from conure.bench.report import clips_as_dict, clips_facts, clips_line
from conure.bench.server import NO_LIVE, Server, start_server
from conure.errors import BadOption, EngineFailed

DIGITS = Path(__file__).parents[1] / "data" / "demo.flac"


def clips_trial(at_once: int, *, same: bool = True) -> ClipTrial:
    sizes = {"server": 100 * 2**20, "engine": 2**30}
    return ClipTrial(at_once, 2 * at_once, same, 60.0 * at_once, 10.0, {"server": 0.1, "engine": 1.5}, sizes)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(["--live-models", NO_LIVE, "--file-models", "tiny"]) as server:
        yield server


def test_every_recording_is_counted(server: Server) -> None:
    trials: list[ClipTrial] = []
    measure_clips(ClipBench(DIGITS, at_once=3, length=4, seconds=1), server, trials.append)
    alone, together = trials
    assert (alone.at_once, together.at_once) == (1, 3)
    assert together.recordings >= 3
    for trial in trials:
        assert trial.same
        assert trial.audio == pytest.approx(4 * trial.recordings)
        assert trial.seconds > 0
        assert trial.cpu.keys() == trial.memory.keys() == {"server", "engine"}


def test_one_at_once_is_measured_once(server: Server) -> None:
    trials: list[ClipTrial] = []
    measure_clips(ClipBench(DIGITS, at_once=1, length=2, seconds=1), server, trials.append)
    assert [trial.at_once for trial in trials] == [1]


def test_an_unknown_model_raises(server: Server) -> None:
    with pytest.raises(EngineFailed, match="nobody"):
        measure_clips(ClipBench(DIGITS, length=1, model="nobody"), server, lambda trial: None)


def test_invalid_numbers() -> None:
    for wrong in ({"at_once": 0}, {"length": 0}, {"seconds": 0.5}):
        with pytest.raises(BadOption, match=f"{next(iter(wrong)).replace('_', '-')} is"):
            ClipBench(DIGITS, **wrong)


def test_a_report() -> None:
    trials = [clips_trial(1), clips_trial(4)]
    assert clips_line(trials[0]) == "recordings, one at a time: 6.0x real time (RTFx)"
    different = "recordings, 4 at once: 24.0x real time (RTFx), transcripts differ"
    assert clips_line(clips_trial(4, same=False)) == different
    rows = dict(clips_facts(trials, 12.0))
    assert rows["recordings, 4 at once"] == "24.0x real time (RTFx)"
    assert rows["cpu, engine"] == "1.50 cores"
    assert rows["memory, engine"] == "1024 MB"
    assert rows["price"] == "$0.50000 per hour of recordings, with the machine at $12 per hour"
    assert (clips_as_dict(trials, 12.0)["hours_an_hour"], clips_as_dict(trials, 12.0)["dollars_per_hour"]) == (24, 0.5)
