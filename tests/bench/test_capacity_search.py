"""Capacity searches with fake machines, whose capacity for given settings is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conure.bench import capacity_search as search_module
from conure.bench import trial as trial_module
from conure.bench.capacity_report import advice, capacity_as_dict, memory, summary
from conure.bench.capacity_search import (
    QUICK,
    THOROUGH,
    CapacityFindings,
    CapacitySearch,
    SearchEffort,
    search_capacity,
)
from conure.bench.clip_bench import ClipBench
from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.sample_speech import sample_recording
from conure.bench.server_flags import ServerOptions
from conure.bench.stream_bench import StreamBench
from conure.bench.trial import Load, Trial
from tests.bench.test_clip_bench import clips_trial
from tests.bench.test_trial import HELD, SLOW
from tests.bench.test_trial import QUICK as IN_TIME

ESTIMATE = 64


@dataclass(frozen=True)
class FakeServer:
    flags: tuple[str, ...]
    stream_url: str = "ws://nowhere"

    def estimated_streams(self, latency_ms: int) -> int:
        return ESTIMATE

    def models(self) -> list[dict[str, str]]:
        return [{"name": "a"}, {"name": "b"}]

    def memory(self) -> dict[str, int]:
        return {"server": 2**20, "engine": 2**22}


@dataclass
class FakeMachine:
    """`capacity` is the number of streams that it sustains with given flags."""

    capacity: Callable[[dict[str, str]], int]
    cpu: float = 0.001
    """Cores per stream of the server process."""
    started: list[list[str]] = field(default_factory=list)
    running: int = 0

    @contextlib.contextmanager
    def start(self, options: Sequence[str]) -> Iterator[FakeServer]:
        self.started.append(list(options))
        self.running += 1
        try:
            yield FakeServer(tuple(options))
        finally:
            self.running -= 1

    def try_load(self, server: FakeServer, load: Load, streams: int) -> Trial:
        flags = dict(zip(server.flags[::2], server.flags[1::2], strict=True))
        late = streams > self.capacity(flags)
        processes = int(flags.get("--processes", 1))
        names = [f"server process {number}" for number in range(processes)] if processes > 1 else []
        cpu = dict.fromkeys(("server", *names), self.cpu / processes) | {"engine": 0.01}
        ends = {"finished": streams}
        return replace(HELD, streams=streams, ends=ends, lag=SLOW if late else IN_TIME, cpu=cpu)


@pytest.fixture
def run_search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CapacityFindings]:
    def run(
        machine: FakeMachine, effort: SearchEffort = QUICK, server_options: ServerOptions | None = None, **options: Any
    ) -> CapacityFindings:
        monkeypatch.setattr(search_module, "start_server", machine.start)
        monkeypatch.setattr(search_module, "try_load", machine.try_load)
        monkeypatch.setattr(trial_module, "try_load", machine.try_load)
        load = Load(PacedStreamSettings("", 160), [], 1.0, [], 0.26)
        monkeypatch.setattr(search_module, "make_load", lambda bench, server: load)
        monkeypatch.setattr(search_module, "measure_clips", lambda bench, server, report: report(clips_trial(4)))
        monkeypatch.setattr("conure.bench.capacity_search.processor_count", lambda: 4)
        monkeypatch.setattr("psutil.cpu_percent", lambda interval: 25.0)
        live, clips = StreamBench(sample_recording()), ClipBench(sample_recording())
        search = CapacitySearch(server_options or {"model": "m"}, live, clips, effort, **options)
        findings = CapacityFindings()
        search_capacity(search, findings, lambda line: None)
        assert findings.complete
        assert not machine.running
        return findings

    return run


def test_recommends_a_fifth_fewer_streams_than_the_maximum(run_search: Callable[..., CapacityFindings]) -> None:
    machine = FakeMachine(lambda flags: 50)
    findings = run_search(machine)
    assert findings.best is not None
    assert 45 <= findings.best.max_streams <= 50
    assert findings.recommended == {"model": "m", "max_streams": int(findings.best.max_streams * 0.8)}
    assert findings.confirmed is not None
    assert findings.confirmed.streams == findings.recommended["max_streams"]
    assert machine.started == [["--model", "m"], ["--model", "m", "--max-streams", str(findings.confirmed.streams)]]


def test_recommends_fewer_streams_if_they_are_not_confirmed(run_search: Callable[..., CapacityFindings]) -> None:
    findings = run_search(FakeMachine(lambda flags: 30 if "--max-streams" in flags else 50))
    assert findings.confirmed is not None
    sustained = [trial.fault is None for trial in findings.confirmations]
    assert sustained == [False, False, True][-len(sustained) :]
    assert len(findings.confirmations) > 1
    assert findings.confirmed.streams <= 30


def test_a_machine_that_sustains_no_stream(run_search: Callable[..., CapacityFindings]) -> None:
    findings = run_search(FakeMachine(lambda flags: 0))
    assert (findings.confirmed, findings.recommended) == (None, {"model": "m"})
    assert len(findings.clips) == 1
    assert "It did not sustain any live stream." in advice(findings)
    assert capacity_as_dict(findings, 1.0)["advice"]["streams"] == 0


def test_a_thorough_search_finds_the_best_threads(run_search: Callable[..., CapacityFindings]) -> None:
    machine = FakeMachine(lambda flags: {"2": 60, "4": 40}.get(flags.get("--threads", ""), 20))
    findings = run_search(machine, replace(THOROUGH, seconds=1))
    assert findings.recommended is not None
    assert findings.recommended["threads"] == 2
    assert [search.server_options.get("threads") for search in findings.searches] == [None, 1, 2, 4]
    findings = run_search(machine, THOROUGH, {"model": "m", "threads": 4})
    assert [search.server_options["threads"] for search in findings.searches] == [4]


def test_processes_are_added_while_they_are_busy_and_help(run_search: Callable[..., CapacityFindings]) -> None:
    machine = FakeMachine(lambda flags: min(100, 30 * int(flags.get("--processes", 1))), cpu=0.03)
    findings = run_search(machine, THOROUGH, {"threads": 4})
    assert findings.recommended is not None
    assert findings.recommended["processes"] == 4
    assert [search.server_options.get("processes", 1) for search in findings.searches] == [1, 2, 4, 8]
    assert len(run_search(machine, THOROUGH, {"threads": 4, "processes": 1}).searches) == 1
    assert len(run_search(FakeMachine(lambda flags: 30), THOROUGH, {"threads": 4}).searches) == 1


def test_smaller_loads_of_a_curve_come_first(run_search: Callable[..., CapacityFindings]) -> None:
    (search,) = run_search(FakeMachine(lambda flags: 50), with_curve=True).searches
    assert [trial.streams for trial in search.trials][:5] == [1, 8, 16, 32, 48]
    (search,) = run_search(FakeMachine(lambda flags: 10), with_curve=True).searches
    assert [trial.streams for trial in search.trials][4:] == [12, 10, 11][: len(search.trials) - 4]


def test_the_report(run_search: Callable[..., CapacityFindings]) -> None:
    findings = run_search(FakeMachine(lambda flags: 48))
    rows = dict(summary(findings, 2.0))
    assert rows["models"] == "a; b"
    assert rows["others"] == "other programs used 25% of the cores; the capacity is higher without"
    assert "others" not in dict(summary(replace(findings, others=0.05), 2.0))
    assert rows["live"] == "48 streams at 160 ms: p99 lag 250 ms, target 260 ms"
    assert rows["recordings, 4 at once"] == "24.0x real time (RTFx)"
    assert "$0.05263 per hour of live audio, with 38 streams; $0.08333 per hour of recordings" in rows["cost"]
    assert memory(findings)[0] == ("MB", "idle", "38 streams", "4 recordings")
    assert memory(findings)[1] == ("server", "1", "128", "100")
    assert "conure serve --model m --max-streams 38\nIt sustained 38 streams at 160 ms" in advice(findings)
    as_dict = capacity_as_dict(findings, 2.0)
    assert as_dict["advice"]["command"] == "conure serve --model m --max-streams 38"
    assert as_dict["advice"]["dollars_per_stream_hour"] == pytest.approx(2 / 38)
    assert as_dict["advice"]["margin"] == pytest.approx(1 - 38 / 48)
    assert as_dict["live"]["streams"] == 48
    assert as_dict["clips"]["hours_an_hour"] == 24


def test_the_report_of_an_interrupted_search() -> None:
    assert summary(CapacityFindings(), 1.0) == [("live", "not measured yet"), ("recordings", "not measured yet")]
    assert "Interrupted" in advice(CapacityFindings())
    rows = capacity_as_dict(CapacityFindings(), None)
    assert (rows["complete"], rows["live"], rows["clips"], rows["advice"]) == (False, None, None, None)
