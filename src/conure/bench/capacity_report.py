"""Reports of a capacity search, as text and as JSON; also of an interrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conure.bench.capacity_search import BUSY_CORE, CapacityFindings, OptionsSearch, server_cores
from conure.bench.report import best_of, clips_as_dict, clips_row, trial_line, trials_as_dict
from conure.bench.server_flags import command
from conure.bench.statistics import Spread

__all__ = ["advice", "memory", "summary", "capacity_as_dict"]

OTHER_LOAD_LIMIT = 0.1
"""Load of other programs above which the report mentions it, as a share of all cores."""
NOT_MEASURED = "not measured yet"


def summary(findings: CapacityFindings, price: float | None) -> list[tuple[str, str]]:
    """Rows of a table: models, streams, recordings, cost."""
    best = findings.best
    rows = [("models", "; ".join(best.models))] if best else []
    if findings.others is not None and findings.others > OTHER_LOAD_LIMIT:
        rows.insert(
            0, ("others", f"other programs used {findings.others:.0%} of the cores; the capacity is higher without")
        )
    rows.append(("live", _live(best) if best else NOT_MEASURED))
    rows += [clips_row(trial) for trial in findings.clips] or [("recordings", NOT_MEASURED)]
    return rows + _costs(findings, price)


def memory(findings: CapacityFindings) -> list[tuple[str, ...]]:
    """A table with its header: megabytes of each process when idle, with streams, with recordings."""
    columns = {}
    if findings.best:
        columns["idle"] = findings.best.idle
    if findings.confirmed:
        columns[f"{findings.confirmed.streams} streams"] = findings.confirmed.memory
    if findings.clips:
        columns[f"{findings.clips[-1].at_once} recordings"] = findings.clips[-1].memory
    names = dict.fromkeys(name for sizes in columns.values() for name in sizes)
    header = ("MB", *columns)
    return [header, *((name, *(_megabytes(sizes, name) for sizes in columns.values())) for name in names)]


def advice(findings: CapacityFindings) -> str:
    """The recommended command, and the streams that it sustained."""
    if findings.recommended is None:
        return "Interrupted before there was a recommendation.\n"
    lines = ["Recommended:", f"  {command(findings.recommended)}"]
    if trial := findings.confirmed:
        lag = trial.promised_lag
        assert lag is not None
        lines.append(
            f"It sustained {trial.streams} streams at {trial.latency_ms} ms: p99 lag {lag.p99 * 1000:.0f} ms, "
            f"target {trial.promise * 1000:.0f} ms."
        )
        lines.append(f"This is {_margin(findings):.0%} below the maximum. The server rejects further streams.")
    elif findings.confirmations:
        lines.append(f"It did not sustain its streams: {trial_line(findings.confirmations[-1])}.")
    else:
        lines.append("It did not sustain any live stream.")
    if findings.best and server_cores(findings.best) > BUSY_CORE:
        lines.append(f"A server process used {server_cores(findings.best):.0%} of a core: it may be the bottleneck.")
    return "\n".join(lines) + "\n"


def capacity_as_dict(findings: CapacityFindings, price: float | None) -> dict[str, Any]:
    best, confirmed = findings.best, findings.confirmed
    return {
        "complete": findings.complete,
        "others": findings.others,
        "models": best.models if best else None,
        "live": trials_as_dict(best.trials, price) | {"settings": dict(best.server_options)} if best else None,
        "clips": clips_as_dict(findings.clips, price) if findings.clips else None,
        "memory": {
            "at_rest": best.idle if best else None,
            "streams": confirmed.memory if confirmed else None,
            "recordings": findings.clips[-1].memory if findings.clips else None,
        },
        "advice": _advice_as_dict(findings, price) if findings.recommended is not None else None,
        "searches": [
            {"settings": dict(search.server_options), "streams": search.max_streams, "trials": len(search.trials)}
            for search in findings.searches
        ],
    }


def _advice_as_dict(findings: CapacityFindings, price: float | None) -> dict[str, Any]:
    assert findings.recommended is not None
    confirmed = findings.confirmed
    lag = confirmed.promised_lag if confirmed else None
    return {
        "command": command(findings.recommended),
        "settings": dict(findings.recommended),
        "margin": _margin(findings),
        "streams": confirmed.streams if confirmed else 0,
        "latency_ms": confirmed.latency_ms if confirmed else None,
        "promise": confirmed.promise if confirmed else None,
        "p99": lag.p99 if lag else None,
        "dollars_per_stream_hour": price / confirmed.streams if price is not None and confirmed else None,
    }


def _margin(findings: CapacityFindings) -> float | None:
    """Share of the maximum number of streams that the recommendation leaves free."""
    if findings.best is None or findings.confirmed is None:
        return None
    return 1 - findings.confirmed.streams / findings.best.max_streams


def _live(best: OptionsSearch) -> str:
    trial = best_of(best.trials)
    if trial.fault:
        return f"none sustained: {trial_line(trial)}"
    return f"{trial.streams} streams at {trial.latency_ms} ms: {_lag(trial.promised_lag)}, target {_ms(trial.promise)}"


def _lag(lag: Spread | None) -> str:
    return f"p99 lag {_ms(lag.p99)}" if lag else "no lag"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _costs(findings: CapacityFindings, price: float | None) -> list[tuple[str, str]]:
    if price is None:
        return []
    costs = []
    if findings.confirmed:
        streams = findings.confirmed.streams
        costs.append(f"${price / streams:.5f} per hour of live audio, with {streams} streams")
    if findings.clips:
        costs.append(f"${price / findings.clips[-1].speed:.5f} per hour of recordings")
    return [("cost", f"{'; '.join(costs)}; the machine is ${price:g} per hour")] if costs else []


def _megabytes(sizes: Mapping[str, int], name: str) -> str:
    return f"{sizes[name] / 2**20:.0f}" if name in sizes else ""
