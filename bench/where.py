"""Times of the stages of a clip: features, subsampling, encoder, decoding; with native kernels and with ONNX graphs.

    python -m bench.where --models FOLDER [--seconds 30] [--clips 1] [--threads 2] [--rounds 8]

Both are measured alternately. Also lists the time of each native kernel. Writes tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.audio import speech
from bench.int8_speed import int8_rate
from bench.report import replace_between
from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.engine.backends.cpu.native_clip_encoder import NativeClipEncoder
from conure.engine.backends.registry import open_clip_runner
from conure.models.preemptible import run_to_end

PARTS = ("features", "subsampling", "encoder", "decoding")
KERNELS = ("multiply", "attend_clips", "quantise", "filter_clips", "normalise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--report", type=Path, default=Path(__file__).parents[1] / "docs" / "performance.md")
    options = parser.parse_args()
    runner, _ = open_clip_runner(
        options.models / "conure", runner="onnx-int8", cache=options.models / "cache", threads=options.threads
    )
    assert isinstance(runner, CpuClipRunner)
    forms = runner, CpuClipRunner(runner.folder, options.threads, kernels=False)
    samples = np.repeat(speech(options.seconds)[None], options.clips, 0)
    rates, clocks, kernels = [], [Clock() for _ in forms], Clock()
    for _ in range(options.rounds):
        rates.append(int8_rate(options.threads))
        for form, clock in zip(forms, clocks, strict=True):
            run(form, samples, clock)
        if isinstance(runner.encoder, NativeClipEncoder):
            with kernels.watching(runner.encoder.layers.kernels, dict.fromkeys(KERNELS)):
                run(runner, samples, Clock())
    seconds = options.seconds * options.clips
    text = "\n\n".join([_describe(options, rates), _by_part(clocks, seconds), _by_kernel(kernels)])
    print(text)
    replace_between(options.report, f"where {options.models.name} {options.clips} x {options.seconds:.0f}", text)


class Clock:
    """Times of calls, each the best of all rounds."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, int], float] = {}
        self._count = collections.Counter[str]()

    @contextmanager
    def watching(self, owner: Any, names: dict[str, str | None]) -> Iterator[None]:
        """Times methods of an object (method -> label, None for its own name) during the block."""
        self._count.clear()
        for method, name in names.items():
            setattr(owner, method, self._timed(name or method, getattr(owner, method)))
        try:
            yield
        finally:
            for method in names:
                delattr(owner, method)

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        place = name, self._count[name]
        self._count[name] += 1
        self.calls[place] = min(self.calls.get(place, float("inf")), (time.perf_counter() - begin) * 1000)
        return result

    def best_ms(self, name: str) -> float:
        """Milliseconds of all calls with this name, each at its best."""
        return sum(milliseconds for (kind, _), milliseconds in self.calls.items() if kind == name)

    def count(self, name: str) -> int:
        return sum(kind == name for kind, _ in self.calls)

    def _timed(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: self.time(name, lambda: inner(*given, **named))


def run(runner: CpuClipRunner, samples: np.ndarray, clock: Clock) -> None:
    lengths = np.full(len(samples), samples.shape[1])
    with clock.watching(runner._front, {"clip": "subsampling"}):
        mel, frames = clock.time("features", lambda: runner.feature_extractor(samples, lengths))
        encoded, counts = clock.time("encode", lambda: run_to_end(runner.encode_mel(mel, frames)))
        clock.time("decoding", lambda: run_to_end(runner.decoder.decode(encoded, counts)))


def _describe(options: argparse.Namespace, rates: list[float]) -> str:
    what = f"{options.clips} x {options.seconds:.0f} s, {options.threads} threads, the best of {options.rounds} rounds"
    low, middle, high = min(rates), float(np.median(rates)), max(rates)
    rate = f"{low:.0f} to {high:.0f} (median {middle:.0f}) billion operations per second"
    return f"{what}. int8 products in ONNX Runtime ran at {rate}."


def _by_part(clocks: list[Clock], seconds: float) -> str:
    rows = {name: [clock.best_ms(name) for clock in clocks] for name in ("features", "subsampling", "decoding")}
    rows["encoder"] = [clock.best_ms("encode") - clock.best_ms("subsampling") for clock in clocks]
    rows = {name: rows[name] for name in PARTS}
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    rows["times real time"] = [seconds * 1000 / milliseconds for milliseconds in rows["all"]]
    lines = [
        f"| {name} | {kernels:.1f} | {graph:.1f} | {graph / kernels:.1f} |" for name, (kernels, graph) in rows.items()
    ]
    lines[-1] = lines[-1].rpartition("| ")[0].rpartition("|")[0] + "|"
    return "\n".join(["| part, ms | kernels | graphs | times as fast |", "|---|---|---|---|", *lines])


def _by_kernel(clock: Clock) -> str:
    lines = [f"| {name} | {clock.best_ms(name):.1f} | {clock.count(name)} |" for name in KERNELS if clock.count(name)]
    return "\n".join(["| kernel of the encoder | ms | calls |", "|---|---|---|", *lines])


if __name__ == "__main__":
    main()
