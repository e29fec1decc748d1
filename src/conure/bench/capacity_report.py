"""What a survey found, for people and for programs; also one that was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conure.bench.capacity_search import FULL, CapacityFindings, Search, serving
from conure.bench.report import as_dict, best_of, clips_as_dict, clips_row, line
from conure.bench.server_flags import command
from conure.bench.statistics import Spread

__all__ = ["advice", "memory", "summary", "capacity_as_dict"]

BUSY = 0.1
"""Of all cores: others that take more are told of."""
NOT_YET = "not measured yet"


def summary(found: CapacityFindings, price: float | None) -> list[tuple[str, str]]:
    """Lines of a table: models, streams, recordings, what they cost."""
    best = found.best
    rows = [("models", "; ".join(best.models))] if best else []
    if found.others is not None and found.others > BUSY:
        rows.insert(0, ("others", f"kept {found.others:.0%} of its cores busy before it began; alone it holds more"))
    rows.append(("live", _live(best) if best else NOT_YET))
    rows += [clips_row(trial) for trial in found.clips] or [("recordings", NOT_YET)]
    return rows + _costs(found, price)


def memory(found: CapacityFindings) -> list[tuple[str, ...]]:
    """A table, with its head: megabytes of each process at rest, with streams, with recordings."""
    columns = {}
    if found.best:
        columns["at rest"] = found.best.idle
    if found.promised:
        columns[f"{found.promised.streams} streams"] = found.promised.memory
    if found.clips:
        columns[f"{found.clips[-1].at_once} recordings"] = found.clips[-1].memory
    names = dict.fromkeys(name for sizes in columns.values() for name in sizes)
    head = ("MB", *columns)
    return [head, *((name, *(_megabytes(sizes, name) for sizes in columns.values())) for name in names)]


def advice(found: CapacityFindings) -> str:
    """The command to use, and what it was seen to hold."""
    if found.chosen is None:
        return "Interrupted before there was anything to advise.\n"
    lines = ["Use", f"  {command(found.chosen)}"]
    if found.promised:
        lag = found.promised.promised_lag
        assert lag is not None
        lines.append(
            f"It held {found.promised.streams} streams at {found.promised.latency_ms} ms when tried: p99 of the lag "
            f"was {lag.p99 * 1000:.0f} ms, promised are {found.promised.promise * 1000:.0f} ms."
        )
        lines.append(f"That is {_margin(found):.0%} below the most that were held; it refuses more than its slots.")
    elif found.kept:
        lines.append(f"It was not seen to hold its streams: {line(found.kept[-1])}.")
    else:
        lines.append("No number of live streams was seen to be held in time with it.")
    if found.best and serving(found.best) > FULL:
        lines.append(f"The server's process was busy with {serving(found.best):.0%} of a core: it may be what limits.")
    return "\n".join(lines) + "\n"


def capacity_as_dict(found: CapacityFindings, price: float | None) -> dict[str, Any]:
    best, held = found.best, found.promised
    return {
        "complete": found.complete,
        "others": found.others,
        "models": best.models if best else None,
        "live": as_dict(best.trials, price) | {"settings": dict(best.choice)} if best else None,
        "clips": clips_as_dict(found.clips, price) if found.clips else None,
        "memory": {
            "at_rest": best.idle if best else None,
            "streams": held.memory if held else None,
            "recordings": found.clips[-1].memory if found.clips else None,
        },
        "advice": _advice_as_dict(found, price) if found.chosen is not None else None,
        "searches": [
            {"settings": dict(search.choice), "streams": search.held, "trials": len(search.trials)}
            for search in found.searches
        ],
    }


def _advice_as_dict(found: CapacityFindings, price: float | None) -> dict[str, Any]:
    assert found.chosen is not None
    held = found.promised
    lag = held.promised_lag if held else None
    return {
        "command": command(found.chosen),
        "settings": dict(found.chosen),
        "margin": _margin(found),
        "streams": held.streams if held else 0,
        "latency_ms": held.latency_ms if held else None,
        "promise": held.promise if held else None,
        "p99": lag.p99 if lag else None,
        "dollars_per_stream_hour": price / held.streams if price is not None and held else None,
    }


def _margin(found: CapacityFindings) -> float | None:
    """The part of the most streams that is left free with the settings to use."""
    if found.best is None or found.promised is None:
        return None
    return 1 - found.promised.streams / found.best.held


def _live(best: Search) -> str:
    trial = best_of(best.trials)
    if trial.fault:
        return f"none is held in time: {line(trial)}"
    return (
        f"{trial.streams} streams at {trial.latency_ms} ms: {_lag(trial.promised_lag)}, promised {_ms(trial.promise)}"
    )


def _lag(lag: Spread | None) -> str:
    return f"p99 of the lag {_ms(lag.p99)}" if lag else "no lag"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _costs(found: CapacityFindings, price: float | None) -> list[tuple[str, str]]:
    if price is None:
        return []
    costs = []
    if found.promised:
        streams = found.promised.streams
        costs.append(f"${price / streams:.5f} an hour of live audio, with {streams} streams")
    if found.clips:
        costs.append(f"${price / found.clips[-1].speed:.5f} an hour of recordings")
    return [("cost", f"{'; '.join(costs)}; the machine is ${price:g} an hour")] if costs else []


def _megabytes(sizes: Mapping[str, int], name: str) -> str:
    return f"{sizes[name] / 2**20:.0f}" if name in sizes else ""
