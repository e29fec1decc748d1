"""Searches the capacity of a machine: live streams, recordings, and recommended settings.

search     start a server with the given settings; double the streams until one is late, then bisect
recommend  a fifth fewer streams than the maximum
confirm    start a server with the recommended settings; measure these streams again, then recordings
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import psutil

from conure.bench.batch_bench import Batch
from conure.bench.clip_bench import ClipBench, ClipTrial, measure_clips
from conure.bench.report import best_of, clips_line, trial_line
from conure.bench.server import Server, start_server
from conure.bench.server_flags import ServerOptions, command, flags
from conure.bench.stream_bench import StreamBench, make_load
from conure.bench.trial import Load, Trial, find_max_streams, try_load
from conure.cpu_count import processor_count

__all__ = [
    "MARGIN",
    "SearchEffort",
    "CapacityFindings",
    "QUICK",
    "OptionsSearch",
    "CapacitySearch",
    "THOROUGH",
    "search_capacity",
]

MARGIN = 0.2
"""Share of the maximum number of streams that is left free, as the speed of machines varies."""
FIRST_SHARE = 0.75
"""A search starts with this share of the server's own estimate."""
CURVE_SHARES = (0, 0.125, 0.25, 0.5)
"""Shares of the estimate that are measured in addition for a figure."""
BUSY_CORE = 0.6
"""Share of a core above which a server process may be the bottleneck."""
SAMPLE_SECONDS = 1.0
"""Duration of the measurement of other load on the machine."""
MAX_ATTEMPTS = 3
"""Attempts to confirm a recommendation, each with fewer streams."""


@dataclass(frozen=True)
class SearchEffort:
    seconds: float
    """Audio of each stream in a trial; also the duration of each measurement of recordings."""
    precision: float
    """Relative precision of the number of streams."""
    max_seconds: float
    """No trial of a search starts after this time."""
    tries: int
    """Trials of a number of streams before it counts as not sustained."""
    tries_settings: bool
    """Whether to search with other settings too."""


QUICK = SearchEffort(seconds=10, precision=0.1, max_seconds=90, tries=1, tries_settings=False)
THOROUGH = SearchEffort(seconds=60, precision=0.05, max_seconds=math.inf, tries=2, tries_settings=True)


@dataclass(frozen=True)
class CapacitySearch:
    server_options: ServerOptions
    """Settings of the first search."""
    live: StreamBench
    clips: ClipBench
    effort: SearchEffort
    with_curve: bool = False
    """Whether to measure smaller loads for a figure."""


@dataclass(frozen=True)
class OptionsSearch:
    """The search for the largest number of streams with given settings."""

    server_options: ServerOptions
    models: tuple[str, ...]
    """Names reported by the server."""
    idle: dict[str, int]
    """Bytes of each process before the first stream."""
    trials: list[Trial] = field(default_factory=list)

    @property
    def max_streams(self) -> int:
        """The largest number of streams that was sustained."""
        return max((trial.streams for trial in self.trials if trial.fault is None), default=0)


@dataclass
class CapacityFindings:
    """Results so far. An interrupted search leaves them incomplete."""

    others: float | None = None
    """Load of other programs before the start, as a share of all cores."""
    searches: list[OptionsSearch] = field(default_factory=list)
    recommended: ServerOptions | None = None
    """Recommended settings."""
    confirmations: list[Trial] = field(default_factory=list)
    """Trials with the recommended settings; the last one counts."""
    clips: list[ClipTrial] = field(default_factory=list)
    """One recording at a time, then several at once; with the recommended settings."""
    batches: list[Batch] = field(default_factory=list)
    """Throughput of the engine without a server, for figures."""
    complete: bool = False

    @property
    def best(self) -> OptionsSearch | None:
        tried = (search for search in self.searches if search.trials)
        return max(tried, key=lambda search: search.max_streams, default=None)

    @property
    def confirmed(self) -> Trial | None:
        """The trial that sustained its streams with the recommended settings; None if there is none."""
        return self.confirmations[-1] if self.confirmations and self.confirmations[-1].fault is None else None


def search_capacity(options: CapacitySearch, findings: CapacityFindings, report: Callable[[str], None]) -> None:
    """Fills `findings`; `report` gets lines of progress.

    Raises EngineFailed if a server does not start, BadOption if it does not have the latency, and ConureError if a
    single stream does not finish.
    """
    findings.others = psutil.cpu_percent(SAMPLE_SECONDS) / 100
    load: Load | None = None
    for server_options in _candidates(options, findings):
        load = _search(options, server_options, load, findings, report)
    assert load is not None
    assert findings.best is not None
    _confirm(options, findings.best, load, findings, report)
    findings.complete = True


def _candidates(options: CapacitySearch, findings: CapacityFindings) -> Iterator[ServerOptions]:
    """Settings to search, lazily: some depend on the findings of earlier searches."""
    yield options.server_options
    if not options.effort.tries_settings:
        return
    if "threads" not in options.server_options:
        count = processor_count()
        yield from ({**options.server_options, "threads": threads} for threads in sorted({1, count // 2, count} - {0}))
    processes = 0
    while "processes" not in options.server_options:
        best = findings.best
        if best is None or _processes(best) <= processes or server_cores(best) < BUSY_CORE:
            return
        processes = _processes(best)
        yield {**best.server_options, "processes": 2 * processes}


def server_cores(search: OptionsSearch) -> float:
    """Cores that the busiest server process needed in the best trial."""
    trial = best_of(search.trials)
    return max((cpu * trial.streams for name, cpu in trial.cpu.items() if name != "engine"), default=0.0)


def _processes(search: OptionsSearch) -> int:
    """Number of server processes."""
    return max(1, len(best_of(search.trials).cpu.keys() - {"server", "engine"}))


def _search(
    options: CapacitySearch,
    server_options: ServerOptions,
    load: Load | None,
    findings: CapacityFindings,
    report: Callable[[str], None],
) -> Load:
    """One search. Returns the load, whose voices and baseline are shared by all searches."""
    with start_server(flags(server_options)) as server:
        estimate = server.estimated_streams(options.live.latency_ms)
        names = tuple(model["name"] for model in server.models())
        current = OptionsSearch(server_options, names, server.memory())
        report(f"{command(server_options)}: estimates {estimate} streams at {options.live.latency_ms} ms")
        load = _with_url(server, load) if load else make_load(options.live, server)
        findings.searches.append(current)

        def record(trial: Trial) -> None:
            current.trials.append(trial)
            report(trial_line(trial))

        for streams in sorted({max(1, round(part * estimate)) for part in CURVE_SHARES} if options.with_curve else ()):
            record(try_load(server, load, streams))
        effort, first, tried = options.effort, max(1, round(FIRST_SHARE * estimate)), list(current.trials)
        find_max_streams(server, load, first, record, effort.precision, effort.max_seconds, effort.tries, tried)
    return load


def _confirm(
    options: CapacitySearch, best: OptionsSearch, load: Load, findings: CapacityFindings, report: Callable[[str], None]
) -> None:
    """Recommends settings and measures them, with fewer streams if they are not sustained this time."""
    shares = [(1 - MARGIN) ** attempt for attempt in range(1, MAX_ATTEMPTS + 1)]
    candidates = [max(1, int(best.max_streams * share)) for share in shares] if best.max_streams else []
    for streams in (*dict.fromkeys(candidates), None):
        findings.recommended = {**best.server_options, "max_streams": streams} if streams else best.server_options
        report(f"{command(findings.recommended)}: recommended")
        with start_server(flags(findings.recommended)) as server:
            if streams:
                findings.confirmations.append(try_load(server, _with_url(server, load), streams))
                report(trial_line(findings.confirmations[-1]))
                if findings.confirmations[-1].fault:
                    continue
            measure_clips(options.clips, server, lambda trial: _note_clips(trial, findings, report))
        return


def _note_clips(trial: ClipTrial, findings: CapacityFindings, report: Callable[[str], None]) -> None:
    findings.clips.append(trial)
    report(clips_line(trial))


def _with_url(server: Server, load: Load) -> Load:
    return replace(load, settings=replace(load.settings, url=server.stream_url))
