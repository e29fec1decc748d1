"""What trials came to, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from conure.bench.clip_bench import ClipTrial
from conure.bench.statistics import Spread
from conure.bench.trial import Trial

__all__ = [
    "as_dict",
    "best_of",
    "_by_kind",
    "clips_as_dict",
    "clips_facts",
    "clips_line",
    "clips_row",
    "facts",
    "line",
    "spreads",
]

Number = TypeVar("Number", int, float)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The largest that was held; the smallest where none was."""
    held = [trial for trial in trials if trial.fault is None]
    return max(held, key=_streams) if held else min(trials, key=_streams)


def line(trial: Trial) -> str:
    """One trial of a search."""
    lag = trial.promised_lag
    told = f"p99 lag {lag.p99 * 1000:.0f} ms" if lag else "no lag"
    return f"{trial.streams} streams: {trial.fault or f'{told}, all in time'}"


def clips_row(trial: ClipTrial) -> tuple[str, str]:
    """What was tried, and what came of it."""
    many = "one at a time" if trial.at_once == 1 else f"{trial.at_once} at once"
    speed = f"{trial.speed:.1f} hours an hour"
    return f"recordings, {many}", speed if trial.same else f"{speed}, not all heard as alone"


def clips_line(trial: ClipTrial) -> str:
    return ": ".join(clips_row(trial))


def clips_facts(trials: Sequence[ClipTrial], price: float | None) -> list[tuple[str, str]]:
    """What there is to say of recordings: alone, then several at once."""
    last = trials[-1]
    found = [
        *(clips_row(trial) for trial in trials),
        *((f"cpu, {name}", f"{cpu:.2f} cores") for name, cpu in _by_kind(last.cpu).items()),
        *((f"memory, {name}", f"{size / 2**20:.0f} MB") for name, size in _by_kind(last.memory).items()),
    ]
    if price is not None:
        found.append(("price", f"${price / last.speed:.5f} an hour of recordings, where the machine is ${price:g}"))
    return found


def clips_as_dict(trials: Sequence[ClipTrial], price: float | None) -> dict[str, Any]:
    speed = max((trial.speed for trial in trials), default=None)
    return {
        "hours_an_hour": speed,
        "dollars_per_hour": price / speed if price is not None and speed else None,
        "trials": [asdict(trial) | {"speed": trial.speed} for trial in trials],
    }


def spreads(trial: Trial) -> list[tuple[str, ...]]:
    """A table of times, with its head."""
    found = {
        "lag of partials": trial.lag,
        "lag as told": trial.told_lag,
        "first words": trial.first_words,
        "last final": trial.final,
    }
    head = ("ms", "p50", "p90", "p99", "most", "of")
    return [head, *(_numbers(name, spread) for name, spread in found.items() if spread)]


def facts(trial: Trial, price: float | None) -> list[tuple[str, str]]:
    """What else there is to say."""
    streams = f"{trial.streams} at {trial.latency_ms} ms, {trial.seconds / trial.streams:.0f} s each"
    turns = f"{trial.turns:.1f} a second of {trial.rows:.1f} rows, in {trial.turn * 1000:.1f} ms: {trial.busy:.0%} busy"
    found = [
        ("streams", streams),
        ("ends", ", ".join(f"{count} {end}" for end, count in trial.ends.items())),
        ("words", f"{trial.words}, {trial.different or 'no'} streams heard otherwise than alone"),
        ("turns", turns),
        *((f"cpu, {name}", f"{cpu:.4f} cores a stream") for name, cpu in _by_kind(trial.cpu).items()),
        *((f"memory, {name}", f"{size / 2**20:.0f} MB") for name, size in _by_kind(trial.memory).items()),
        ("clients", f"{trial.late * 1000:.0f} ms behind their pace at most"),
        ("held", f"no: {trial.fault}" if trial.fault else "yes"),
    ]
    if price is not None and trial.fault is None:
        found.append(("price", f"${price / trial.streams:.5f} an hour of a stream, where the machine is ${price:g}"))
    return found


def as_dict(trials: Sequence[Trial], price: float | None) -> dict[str, Any]:
    best = best_of(trials)
    held = best.streams if best.fault is None else 0
    return {
        "streams": held,
        "dollars_per_stream_hour": price / held if price is not None and held else None,
        "trials": [asdict(trial) | {"fault": trial.fault} for trial in trials],
    }


def _by_kind(values: Mapping[str, Number]) -> dict[str, Number]:
    """The sum for processes of a kind: the names of several have numbers behind it."""
    sums: dict[str, Number] = {}
    for name, value in values.items():
        kind = name.partition(" ")[0]
        sums[kind] = sums[kind] + value if kind in sums else value
    return sums


def _numbers(name: str, spread: Spread) -> tuple[str, ...]:
    numbers = (spread.p50, spread.p90, spread.p99, spread.most)
    return (name, *(f"{number * 1000:.0f}" for number in numbers), str(spread.count))


def _streams(trial: Trial) -> int:
    return trial.streams
