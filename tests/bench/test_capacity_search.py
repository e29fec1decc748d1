"""A survey of machines that pretend: how many streams each holds with which settings is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conure.bench import capacity_search as surveys
from conure.bench import trial as trials
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
from conure.bench.sample_speech import shipped
from conure.bench.server_flags import Choice
from conure.bench.stream_bench import StreamBench
from conure.bench.trial import Load, Trial
from tests.bench.test_clip_bench import clips_trial
from tests.bench.test_trial import HELD, SLOW
from tests.bench.test_trial import QUICK as IN_TIME

ROOM = 64


@dataclass(frozen=True)
class Pretender:
    flags: tuple[str, ...]
    stream_url: str = "ws://nowhere"

    def room(self, latency_ms: int) -> int:
        return ROOM

    def models(self) -> list[dict[str, str]]:
        return [{"name": "a"}, {"name": "b"}]

    def memory(self) -> dict[str, int]:
        return {"server": 2**20, "engine": 2**22}


@dataclass
class Machine:
    """Holds so many streams with those flags."""

    holds: Callable[[dict[str, str]], int]
    cpu: float = 0.001
    """Of the server's process, cores a stream."""
    started: list[list[str]] = field(default_factory=list)
    running: int = 0

    @contextlib.contextmanager
    def start(self, options: Sequence[str]) -> Iterator[Pretender]:
        self.started.append(list(options))
        self.running += 1
        try:
            yield Pretender(tuple(options))
        finally:
            self.running -= 1

    def try_load(self, server: Pretender, load: Load, streams: int) -> Trial:
        given = dict(zip(server.flags[::2], server.flags[1::2], strict=True))
        late = streams > self.holds(given)
        doors = int(given.get("--processes", 1))
        names = [f"door {number}" for number in range(doors)] if doors > 1 else []
        cpu = dict.fromkeys(("server", *names), self.cpu / doors) | {"engine": 0.01}
        ends = {"finished": streams}
        return replace(HELD, streams=streams, ends=ends, lag=SLOW if late else IN_TIME, cpu=cpu)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CapacityFindings]:
    def run(
        machine: Machine, effort: SearchEffort = QUICK, choice: Choice | None = None, **options: Any
    ) -> CapacityFindings:
        monkeypatch.setattr(surveys, "start_server", machine.start)
        monkeypatch.setattr(surveys, "try_load", machine.try_load)
        monkeypatch.setattr(trials, "try_load", machine.try_load)
        monkeypatch.setattr(
            surveys, "load_of", lambda bench, server: Load(PacedStreamSettings("", 160), [], 1.0, [], 0.26)
        )
        monkeypatch.setattr(surveys, "measure_clips", lambda bench, server, tell: tell(clips_trial(4)))
        monkeypatch.setattr("conure.bench.capacity_search.processor_count", lambda: 4)
        monkeypatch.setattr("psutil.cpu_percent", lambda interval: 25.0)
        asked = CapacitySearch(
            choice or {"model": "m"}, StreamBench(shipped()), ClipBench(shipped()), effort, **options
        )
        found = CapacityFindings()
        search_capacity(asked, found, lambda line: None)
        assert found.complete
        assert not machine.running
        return found

    return run


def test_a_fifth_fewer_than_the_most_is_what_is_used(look: Callable[..., CapacityFindings]) -> None:
    machine = Machine(lambda given: 50)
    found = look(machine)
    assert found.best is not None
    assert 45 <= found.best.held <= 50
    assert found.chosen == {"model": "m", "max_streams": int(found.best.held * 0.8)}
    assert found.promised is not None
    assert found.promised.streams == found.chosen["max_streams"]
    assert machine.started == [["--model", "m"], ["--model", "m", "--max-streams", str(found.promised.streams)]]


def test_fewer_are_used_where_the_second_time_is_worse(look: Callable[..., CapacityFindings]) -> None:
    found = look(Machine(lambda given: 30 if "--max-streams" in given else 50))
    assert found.promised is not None
    assert [trial.fault is None for trial in found.kept] == [False, False, True][-len(found.kept) :]
    assert len(found.kept) > 1
    assert found.promised.streams <= 30


def test_a_machine_that_holds_none_is_told_so(look: Callable[..., CapacityFindings]) -> None:
    found = look(Machine(lambda given: 0))
    assert (found.promised, found.chosen) == (None, {"model": "m"})
    assert len(found.clips) == 1
    assert "No number of live streams was seen to be held" in advice(found)
    assert capacity_as_dict(found, 1.0)["advice"]["streams"] == 0


def test_a_thorough_survey_takes_the_best_threads(look: Callable[..., CapacityFindings]) -> None:
    machine = Machine(lambda given: {"2": 60, "4": 40}.get(given.get("--threads", ""), 20))
    found = look(machine, replace(THOROUGH, seconds=1))
    assert found.chosen is not None
    assert found.chosen["threads"] == 2
    assert [search.choice.get("threads") for search in found.searches] == [None, 1, 2, 4]
    asked = look(machine, THOROUGH, {"model": "m", "threads": 4})
    assert [search.choice["threads"] for search in asked.searches] == [4]


def test_processes_are_added_for_as_long_as_they_are_full_and_help(look: Callable[..., CapacityFindings]) -> None:
    machine = Machine(lambda given: min(100, 30 * int(given.get("--processes", 1))), cpu=0.03)
    found = look(machine, THOROUGH, {"threads": 4})
    assert found.chosen is not None
    assert found.chosen["processes"] == 4
    assert [search.choice.get("processes", 1) for search in found.searches] == [1, 2, 4, 8]
    assert len(look(machine, THOROUGH, {"threads": 4, "processes": 1}).searches) == 1
    assert len(look(Machine(lambda given: 30), THOROUGH, {"threads": 4}).searches) == 1


def test_smaller_loads_of_a_curve_come_first(look: Callable[..., CapacityFindings]) -> None:
    (search,) = look(Machine(lambda given: 50), curve=True).searches
    assert [trial.streams for trial in search.trials][:5] == [1, 8, 16, 32, 48]
    (search,) = look(Machine(lambda given: 10), curve=True).searches
    assert [trial.streams for trial in search.trials][4:] == [12, 10, 11][: len(search.trials) - 4]


def test_what_is_told(look: Callable[..., CapacityFindings]) -> None:
    found = look(Machine(lambda given: 48))
    told = dict(summary(found, 2.0))
    assert told["models"] == "a; b"
    assert told["others"] == "kept 25% of its cores busy before it began; alone it holds more"
    assert "others" not in dict(summary(replace(found, others=0.05), 2.0))
    assert told["live"] == "48 streams at 160 ms: p99 of the lag 250 ms, promised 260 ms"
    assert told["recordings, 4 at once"] == "24.0 hours an hour"
    assert "$0.05263 an hour of live audio, with 38 streams; $0.08333 an hour of recordings" in told["cost"]
    assert memory(found)[0] == ("MB", "at rest", "38 streams", "4 recordings")
    assert memory(found)[1] == ("server", "1", "128", "100")
    assert "conure serve --model m --max-streams 38\nIt held 38 streams at 160 ms" in advice(found)
    as_dict = capacity_as_dict(found, 2.0)
    assert as_dict["advice"]["command"] == "conure serve --model m --max-streams 38"
    assert as_dict["advice"]["dollars_per_stream_hour"] == pytest.approx(2 / 38)
    assert as_dict["advice"]["margin"] == pytest.approx(1 - 38 / 48)
    assert as_dict["live"]["streams"] == 48
    assert as_dict["clips"]["hours_an_hour"] == 24


def test_little_is_told_of_a_survey_that_was_interrupted() -> None:
    assert summary(CapacityFindings(), 1.0) == [("live", "not measured yet"), ("recordings", "not measured yet")]
    assert "Interrupted" in advice(CapacityFindings())
    told = capacity_as_dict(CapacityFindings(), None)
    assert (told["complete"], told["live"], told["clips"], told["advice"]) == (False, None, None, None)
