"""The common part of workers: load, run the given cases, print a line of JSON for each. Needs only numpy.

    python WORKER.py '{"model": PATH, "threads": 2, "cases": [{"name": "...", "files": [...], "repeats": 3}]}'

A case runs once to warm up, unless it is long, and then `repeats` times. An error ends its case, not the worker.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

Transcribe = Callable[[list[Path], list[np.ndarray]], int]
"""Clips, by path and as float32 at 16 kHz, in one batch -> number of tokens or characters."""

LONG_SECONDS = 120


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def print_line(**facts: object) -> None:
    print(json.dumps(facts), file=OUT, flush=True)


def serve(load: Callable[[dict], tuple[Transcribe, str]]) -> None:
    """`load` takes the task and returns the transcribe function and a description of versions."""
    task = json.loads(sys.argv[1])
    started_at = time.perf_counter()
    transcribe, version = load(task)
    print_line(event="loaded", seconds=time.perf_counter() - started_at, version=version, peak_mb=peak_mb())
    for case in task["cases"]:
        try:
            print_line(event="case", name=case["name"], **run(transcribe, case), peak_mb=peak_mb())
        except Exception as error:
            print_line(event="failed", name=case["name"], error=f"{type(error).__name__}: {error}"[:300])


def run(transcribe: Transcribe, case: dict) -> dict:
    paths = [Path(path) for path in case["files"]]
    clips = [read_wav(path) for path in paths]
    audio = sum(len(clip) for clip in clips) / 16_000
    if audio <= LONG_SECONDS * 3:
        transcribe(paths, clips)
    seconds, came = [], 0
    for _ in range(case["repeats"]):
        started_at = time.perf_counter()
        came = transcribe(paths, clips)
        seconds.append(time.perf_counter() - started_at)
    return {"audio": audio, "seconds": seconds, "came": came}


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _reserve_stdout() -> int:
    """Redirects stdout to stderr, as libraries print to it; returns a descriptor of the original stdout."""
    original = os.dup(1)
    os.dup2(2, 1)
    return original


OUT = os.fdopen(_reserve_stdout(), "w")
