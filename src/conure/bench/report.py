"""Reports of trials, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from conure.bench.clip_bench import ClipTrial
from conure.bench.statistics import Spread
from conure.bench.trial import Trial

__all__ = [
    "trials_as_dict",
    "best_of",
    "clips_as_dict",
    "clips_facts",
    "clips_line",
    "clips_row",
    "trial_facts",
    "trial_line",
    "spread_table",
]

Number = TypeVar("Number", int, float)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The largest trial that was sustained; the smallest if none was."""
    sustained = [trial for trial in trials if trial.fault is None]
    return max(sustained, key=_streams) if sustained else min(trials, key=_streams)


def trial_line(trial: Trial) -> str:
    """One line about a trial of a search."""
    lag = trial.promised_lag
    lag_text = f"p99 lag {lag.p99 * 1000:.0f} ms" if lag else "no lag"
    return f"{trial.streams} streams: {trial.fault or f'{lag_text}, sustained'}"


def clips_row(trial: ClipTrial) -> tuple[str, str]:
    """A label and the throughput."""
    count = "one at a time" if trial.at_once == 1 else f"{trial.at_once} at once"
    speed = f"{trial.speed:.1f}x real time (RTFx)"
    return f"recordings, {count}", speed if trial.same else f"{speed}, transcripts differ"


def clips_line(trial: ClipTrial) -> str:
    return ": ".join(clips_row(trial))


def clips_facts(trials: Sequence[ClipTrial], price: float | None) -> list[tuple[str, str]]:
    """Rows of a table about recordings: one at a time, then several at once."""
    last = trials[-1]
    rows = [
        *(clips_row(trial) for trial in trials),
        *((f"cpu, {name}", f"{cpu:.2f} cores") for name, cpu in _by_kind(last.cpu).items()),
        *((f"memory, {name}", f"{size / 2**20:.0f} MB") for name, size in _by_kind(last.memory).items()),
    ]
    if price is not None:
        rows.append(
            ("price", f"${price / last.speed:.5f} per hour of recordings, with the machine at ${price:g} per hour")
        )
    return rows


def clips_as_dict(trials: Sequence[ClipTrial], price: float | None) -> dict[str, Any]:
    speed = max((trial.speed for trial in trials), default=None)
    return {
        "hours_an_hour": speed,
        "dollars_per_hour": price / speed if price is not None and speed else None,
        "trials": [asdict(trial) | {"speed": trial.speed} for trial in trials],
    }


def spread_table(trial: Trial) -> list[tuple[str, ...]]:
    """A table of times in milliseconds, with its header."""
    spreads = {
        "lag of partials": trial.lag,
        "lag by server": trial.told_lag,
        "first words": trial.first_words,
        "last final": trial.final,
    }
    header = ("ms", "p50", "p90", "p99", "max", "count")
    return [header, *(_spread_row(name, spread) for name, spread in spreads.items() if spread)]


def trial_facts(trial: Trial, price: float | None) -> list[tuple[str, str]]:
    """Rows of a table about a trial."""
    streams = f"{trial.streams} at {trial.latency_ms} ms, {trial.seconds / trial.streams:.0f} s each"
    steps = f"{trial.turns:.1f}/s of {trial.rows:.1f} rows in {trial.turn * 1000:.1f} ms, {trial.busy:.0%} busy"
    rows = [
        ("streams", streams),
        ("ends", ", ".join(f"{count} {end}" for end, count in trial.ends.items())),
        ("words", f"{trial.words}; {trial.different or 'no'} transcripts differ from single streams"),
        ("steps", steps),
        *((f"cpu, {name}", f"{cpu:.4f} cores per stream") for name, cpu in _by_kind(trial.cpu).items()),
        *((f"memory, {name}", f"{size / 2**20:.0f} MB") for name, size in _by_kind(trial.memory).items()),
        ("clients", f"packets sent at most {trial.late * 1000:.0f} ms late"),
        ("sustained", f"no: {trial.fault}" if trial.fault else "yes"),
    ]
    if price is not None and trial.fault is None:
        cost = f"${price / trial.streams:.5f} per hour of a stream, with the machine at ${price:g} per hour"
        rows.append(("price", cost))
    return rows


def trials_as_dict(trials: Sequence[Trial], price: float | None) -> dict[str, Any]:
    best = best_of(trials)
    streams = best.streams if best.fault is None else 0
    return {
        "streams": streams,
        "dollars_per_stream_hour": price / streams if price is not None and streams else None,
        "trials": [asdict(trial) | {"fault": trial.fault} for trial in trials],
    }


def _by_kind(values: Mapping[str, Number]) -> dict[str, Number]:
    """Sums over processes of a kind: the names of several end with a number."""
    sums: dict[str, Number] = {}
    for name, value in values.items():
        kind = name.rstrip(" 0123456789")
        sums[kind] = sums[kind] + value if kind in sums else value
    return sums


def _spread_row(name: str, spread: Spread) -> tuple[str, ...]:
    numbers = (spread.p50, spread.p90, spread.p99, spread.most)
    return (name, *(f"{number * 1000:.0f}" for number in numbers), str(spread.count))


def _streams(trial: Trial) -> int:
    return trial.streams
