"""The data of figures as CSV files, one for each figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from conure.bench.batch_bench import BATCH_CLIPS, CLIP_SECONDS, Batch
from conure.bench.trial import Trial

__all__ = ["Row", "batch_rows", "lag_rows", "length_rows", "memory_rows", "write_rows"]

Row = dict[str, str | int | float]


def lag_rows(trials: Iterable[Trial]) -> list[Row]:
    """Lag by number of streams, ascending. Trials without any audio have no lag and are left out."""
    measured = [(trial, lag) for trial in trials if (lag := trial.promised_lag)]
    return [
        {
            "streams": trial.streams,
            "lag_p50_ms": round(lag.p50 * 1000, 1),
            "lag_p99_ms": round(lag.p99 * 1000, 1),
            "promise_ms": round(trial.promise * 1000, 1),
            "held": int(trial.fault is None),
        }
        for trial, lag in sorted(measured, key=lambda pair: pair[0].streams)
    ]


def memory_rows(idle: dict[str, int], trials: Iterable[Trial]) -> list[Row]:
    """Megabytes of each process, by number of streams.

    Processes do not return memory, so trials after a larger one are left out.
    """
    rows, max_streams = [_memory_row(0, idle)], 0
    for trial in trials:
        if trial.streams > max_streams and trial.promised_lag:
            max_streams = trial.streams
            rows.append(_memory_row(max_streams, trial.memory))
    return rows


def batch_rows(batches: Iterable[Batch]) -> list[Row]:
    """Throughput by clips in a batch, each of CLIP_SECONDS."""
    return _batch_rows(
        sorted((batch for batch in batches if batch.length == CLIP_SECONDS), key=lambda batch: batch.clips)
    )


def length_rows(batches: Iterable[Batch]) -> list[Row]:
    """Throughput by clip length, with one and with BATCH_CLIPS clips in a batch."""
    chosen = [batch for batch in batches if batch.clips in (1, BATCH_CLIPS)]
    return _batch_rows(sorted(chosen, key=lambda batch: (batch.clips, batch.length)))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _memory_row(streams: int, sizes: dict[str, int]) -> Row:
    row: Row = {"streams": streams}
    return row | {f"{name}_mb": round(size / 2**20, 1) for name, size in sizes.items()}


def _batch_rows(batches: Iterable[Batch]) -> list[Row]:
    return [
        {
            "clips": batch.clips,
            "length_s": batch.length,
            "batch_s": round(batch.seconds, 4),
            "hours_an_hour": round(batch.speed, 2),
        }
        for batch in batches
    ]
