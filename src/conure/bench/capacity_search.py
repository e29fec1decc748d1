"""All that a machine holds: the most live streams in time, recordings, and the settings that keep what is promised.

search   a server with the settings that were asked for; more streams until one is late, then fewer
choose   a fifth fewer streams than the most that were held
keep     a server with the chosen settings, as it will be used: the promise once more, then recordings
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import psutil

from conure.bench.batch_bench import Batch
from conure.bench.clip_bench import ClipBench, ClipTrial, measure_clips
from conure.bench.report import best_of, clips_line, line
from conure.bench.server import Server, start_server
from conure.bench.server_flags import Choice, command, flags
from conure.bench.stream_bench import StreamBench, load_of
from conure.bench.trial import Load, Trial, search, try_load
from conure.cpu_count import processor_count

__all__ = [
    "MARGIN",
    "SearchEffort",
    "CapacityFindings",
    "QUICK",
    "Search",
    "CapacitySearch",
    "THOROUGH",
    "search_capacity",
]

MARGIN = 0.2
"""The part of the most streams that is left free: machines have better and worse minutes."""
FIRST = 0.75
"""Of the streams that the server thinks it holds: where a search begins."""
LADDER = (0, 0.125, 0.25, 0.5)
"""The same for the smaller loads of a curve."""
FULL = 0.6
"""Of a core: a server process that is busier may be what limits."""
LOOK = 1.0
"""Seconds of a look at what else the machine does."""
TRIES = 3
"""Of fewer streams, where those that were chosen are not held."""


@dataclass(frozen=True)
class SearchEffort:
    seconds: float
    """Audio of a stream in a trial; that recordings are sent, one at a time and several at once."""
    precision: float
    """Of the number of streams."""
    within: float
    """Seconds after which a search tries nothing new."""
    tries: int
    """Of a number of streams that is not held."""
    tunes: bool
    """Whether other settings are tried, too."""


QUICK = SearchEffort(seconds=10, precision=0.1, within=90, tries=1, tunes=False)
THOROUGH = SearchEffort(seconds=60, precision=0.05, within=math.inf, tries=2, tunes=True)


@dataclass(frozen=True)
class CapacitySearch:
    choice: Choice
    """Settings that were asked for."""
    live: StreamBench
    clips: ClipBench
    effort: SearchEffort
    curve: bool = False
    """Whether smaller loads are tried, too."""


@dataclass(frozen=True)
class Search:
    """The way to the most streams with some settings."""

    choice: Choice
    models: tuple[str, ...]
    """As the server names them."""
    idle: dict[str, int]
    """Bytes of each process before the first stream."""
    trials: list[Trial] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Streams."""
        return max((trial.streams for trial in self.trials if trial.fault is None), default=0)


@dataclass
class CapacityFindings:
    """What was found so far: there is more of it until the survey is complete."""

    others: float | None = None
    """The part of the machine's cores that others kept busy before it began."""
    searches: list[Search] = field(default_factory=list)
    chosen: Choice | None = None
    """Settings to use."""
    kept: list[Trial] = field(default_factory=list)
    """Trials with them: of the streams that may be promised, the last one."""
    clips: list[ClipTrial] = field(default_factory=list)
    """Alone, then several at once; with those settings."""
    batches: list[Batch] = field(default_factory=list)
    """Of the engine alone, where curves were asked for."""
    complete: bool = False

    @property
    def best(self) -> Search | None:
        return max((search for search in self.searches if search.trials), key=lambda found: found.held, default=None)

    @property
    def promised(self) -> Trial | None:
        """Held with the settings to use."""
        return self.kept[-1] if self.kept and self.kept[-1].fault is None else None


def search_capacity(asked: CapacitySearch, found: CapacityFindings, tell: Callable[[str], None]) -> None:
    """Adds to what was found; `tell` gets lines on the way.

    Raises EngineFailed where a server does not start, BadOption where it has no such latency, ConureError where a
    stream alone is not finished.
    """
    found.others = psutil.cpu_percent(LOOK) / 100
    load: Load | None = None
    for choice in _choices(asked, found):
        load = _search(asked, choice, load, found, tell)
    assert load is not None
    assert found.best is not None
    _keep(asked, found.best, load, found, tell)
    found.complete = True


def _choices(asked: CapacitySearch, found: CapacityFindings) -> Iterator[Choice]:
    """Each is asked for when those before have been searched."""
    yield asked.choice
    if not asked.effort.tunes:
        return
    if "threads" not in asked.choice:
        count = processor_count()
        yield from ({**asked.choice, "threads": threads} for threads in sorted({1, count // 2, count} - {0}))
    processes = 0
    while "processes" not in asked.choice:
        best = found.best
        if best is None or _processes(best) <= processes or serving(best) < FULL:
            return
        processes = _processes(best)
        yield {**best.choice, "processes": 2 * processes}


def serving(search: Search) -> float:
    """Cores that the busiest process which holds connections needed for the most streams that were held."""
    trial = best_of(search.trials)
    return max((cpu * trial.streams for name, cpu in trial.cpu.items() if name != "engine"), default=0.0)


def _processes(search: Search) -> int:
    """That hold connections: the server's own where it has no others for that."""
    return max(1, len(best_of(search.trials).cpu.keys() - {"server", "engine"}))


def _search(
    asked: CapacitySearch, choice: Choice, load: Load | None, found: CapacityFindings, tell: Callable[[str], None]
) -> Load:
    """What is spoken, and heard alone, is the same in all searches."""
    with start_server(flags(choice)) as server:
        room = server.room(asked.live.latency_ms)
        names = tuple(model["name"] for model in server.models())
        here = Search(choice, names, server.memory())
        tell(f"{command(choice)}: by its own estimate {room} streams at {asked.live.latency_ms} ms")
        load = _at(server, load) if load else load_of(asked.live, server)
        found.searches.append(here)

        def note(trial: Trial) -> None:
            here.trials.append(trial)
            tell(line(trial))

        for streams in sorted({max(1, round(part * room)) for part in LADDER} if asked.curve else ()):
            note(try_load(server, load, streams))
        effort, first = asked.effort, max(1, round(FIRST * room))
        search(server, load, first, note, effort.precision, effort.within, effort.tries, list(here.trials))
    return load


def _keep(
    asked: CapacitySearch, best: Search, load: Load, found: CapacityFindings, tell: Callable[[str], None]
) -> None:
    """The settings to use: fewer streams again where those that were chosen are not held the second time."""
    fewer = [max(1, int(best.held * (1 - MARGIN) ** times)) for times in range(1, TRIES + 1)] if best.held else []
    for streams in (*dict.fromkeys(fewer), None):
        found.chosen = {**best.choice, "max_streams": streams} if streams else best.choice
        tell(f"{command(found.chosen)}: to be used")
        with start_server(flags(found.chosen)) as server:
            if streams:
                found.kept.append(try_load(server, _at(server, load), streams))
                tell(line(found.kept[-1]))
                if found.kept[-1].fault:
                    continue
            measure_clips(asked.clips, server, lambda trial: _note_clips(trial, found, tell))
        return


def _note_clips(trial: ClipTrial, found: CapacityFindings, tell: Callable[[str], None]) -> None:
    found.clips.append(trial)
    tell(clips_line(trial))


def _at(server: Server, load: Load) -> Load:
    return replace(load, asked=replace(load.asked, url=server.stream_url))
