"""Tables in docs/performance.md, each between its markers."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

from bench.engines import BEST

__all__ = ["replace_between", "table_of", "write_report"]

NO_NUMBER = "–"


def write_report(results: dict[str, Any], path: Path) -> None:
    name = f"clips {results['model']}"
    replace_between(path, name, "\n".join([describe(results), "", table_of(results), "", versions_of(results)]))


def replace_between(path: Path, name: str, text: str) -> None:
    """Replaces the text between the markers of this name; appends them to the file if missing."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    block = f"{begin}\n{text}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    after = pattern.sub(lambda _: block, before) if pattern.search(before) else f"{before.rstrip()}\n\n{block}\n"
    path.write_text(after, encoding="utf-8")


def describe(results: dict[str, Any]) -> str:
    machine = results["machine"]
    rounds = max(len(lines) for lines in results["engines"].values())
    instructions = ", ".join(machine["instructions"])
    rates = sorted(rate for line in _lines(results) for rate in line.get("int8_rate", ()))
    speeds = f"at {rates[0]:.0f} to {rates[-1]:.0f} (median {median(rates):.0f}) billion operations per second"
    return (
        f"{machine['processor']}, {machine['cores']} cores ({instructions}), {results['threads']} threads; the best of "
        f"up to {rounds} alternating rounds, long cases once. Meanwhile, int8 products of the encoder's largest size "
        f"ran {speeds}."
    )


def table_of(results: dict[str, Any]) -> str:
    """Throughput in times real time, with the ratio of Conure's best engine in brackets; peak memory; load time."""
    cases = list(dict.fromkeys(line["name"] for line in _lines(results) if line.get("event") == "case"))
    header = ["engine", *cases, "peak memory", "load"]
    rows = [header, ["---"] * len(header)]
    best_of_conure = {case: speed(results["engines"].get(BEST.name, []), case) for case in cases}
    for name, rounds in results["engines"].items():
        cells = [_cell(speed(rounds, case), best_of_conure[case], name == BEST.name) for case in cases]
        rows.append([name, *cells, _memory(rounds), _load(rounds)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def speed(rounds: list[list[dict[str, Any]]], case: str) -> float | None:
    """The best throughput (RTFx) of all rounds: other load on the machine only slows it down."""
    found = [
        line["audio"] / min(line["seconds"])
        for lines in rounds
        for line in lines
        if line.get("event") == "case" and line["name"] == case
    ]
    return max(found, default=None)


def versions_of(results: dict[str, Any]) -> str:
    versions = dict.fromkeys(line["version"] for line in _lines(results) if line.get("event") == "loaded")
    return "Versions: " + "; ".join(versions) + "."


def _cell(value: float | None, best_of_conure: float | None, is_best: bool) -> str:
    if value is None:
        return NO_NUMBER
    ratio = "" if best_of_conure is None or is_best else f" ({best_of_conure / value:.2f})"
    return f"{value:.1f}{ratio}"


def _memory(rounds: list[list[dict[str, Any]]]) -> str:
    peaks = [line["peak_mb"] for lines in rounds for line in lines if "peak_mb" in line]
    return f"{max(peaks) / 1000:.1f} GB" if peaks else NO_NUMBER


def _load(rounds: list[list[dict[str, Any]]]) -> str:
    seconds = [line["seconds"] for lines in rounds for line in lines if line.get("event") == "loaded"]
    return f"{median(seconds):.1f} s" if seconds else NO_NUMBER


def _lines(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for rounds in results["engines"].values() for lines in rounds for line in lines]
