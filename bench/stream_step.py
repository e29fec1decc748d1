"""Times of a step of live streams, by batch size and chunk: encoder layers, other parts of the encoder, decoding.

    python -m bench.stream_step --folder FOLDER [--layers 24] [--batches 1 2 4 8 16 20 32 40] [--chunks 2 7 14]
        [--precision int8] [--threads 2] [--rounds 5] [--graph] [--twin 1 8] [--operators] [--report FILE]

A network of the shape of nemotron-speech-streaming-en-0.6b with random weights is converted into FOLDER once. The past
of all rows is full, and their slots are scattered among twice as many. `ms` is the best wall time of some rounds and
`cpu ms` the best CPU time of all threads, which other load hardly affects. `streams` is the resulting capacity in real
time, batch * chunk / step. --graph also measures ONNX Runtime's graph, alternating with the native kernels, and --twin
the torch modules in fp32.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from bench.int8_speed import int8_rate
from bench.random_model import LIVE_PAST as PAST
from bench.random_model import random_live_checkpoint
from conure.engine.backends.cpu.native_stream_encoder import NativeStreamEncoder
from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.backends.stream_runner import StreamRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import is_usable
from conure.engine.convert.graph_names import STREAM_FILE
from conure.models.config import STEP_FRAMES
from conure.models.loader import build_network

STEP_MS = 80


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    folder = options.folder / f"nemotron-{options.layers}-{options.precision}"
    if not is_usable(folder):
        convert(random_live_checkpoint(options.layers), folder, options.precision)
    before = int8_rate(options.threads)
    runners = [CpuStreamRunner(folder, options.threads)]
    if options.graph:
        runners.append(CpuStreamRunner(folder, options.threads, kernels=False))
    results = [(runner.description, measure(runner, chunk, options)) for chunk in options.chunks for runner in runners]
    if options.operators:
        for runner in runners:
            _print_operators(runner, folder, options)
    if options.twin:
        torch.set_num_threads(options.threads)
        reference = TorchStreamRunner(*build_network(random_live_checkpoint(options.layers)), torch.device("cpu"))
        options.batches = options.twin
        results += [(reference.description + " fp32", measure(reference, chunk, options)) for chunk in options.chunks]
    rate = (
        f"int8 products alone: {before:.0f} before, {int8_rate(options.threads):.0f} after, in 10^9 operations a second"
    )
    text = "\n".join([f"{options.layers} layers of 1,024, {options.threads} threads; {rate}.", "", *_table(results)])
    print(text)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16, 20, 32, 40])
    parser.add_argument("--chunks", type=int, nargs="*", default=[2, 7, 14], help="in encoder frames of 80 ms")
    parser.add_argument("--precision", default="int8", choices=["int8", "fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--graph", action="store_true", help="measure ONNX Runtime's graph, too")
    parser.add_argument("--twin", type=int, nargs="*", default=[], help="batch sizes for the torch modules")
    parser.add_argument("--operators", action="store_true", help="times by kind of operator, for the last case")
    parser.add_argument("--report", type=Path)
    return parser


class Clock:
    """Wall and CPU milliseconds of each part; the best of some rounds."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = collections.defaultdict(lambda: float("inf"))
        self.cpu: dict[str, float] = collections.defaultdict(lambda: float("inf"))

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall[name] = min(self.wall[name], (time.perf_counter() - wall) * 1000)
        self.cpu[name] = min(self.cpu[name], (time.process_time() - cpu) * 1000)
        return result

    @contextmanager
    def timing(self, owner: Any, **parts: str) -> Iterator[None]:
        """Times methods of an object during the block; methods that it lacks are ignored."""
        parts = {name: method for name, method in parts.items() if hasattr(owner, method)}
        for name, method in parts.items():
            inner = getattr(owner, method)
            setattr(owner, method, lambda *args, name=name, inner=inner: self.time(name, lambda: inner(*args)))
        try:
            yield
        finally:
            for method in parts.values():
                delattr(owner, method)


def measure(runner: StreamRunner[Any], chunk: int, options: argparse.Namespace) -> dict[tuple[int, int], Clock]:
    """Times by batch and chunk."""
    results = {}
    for batch in options.batches:
        clock, step = Clock(), Step(runner, batch, chunk)
        step.fill()
        step.run(Clock())
        encoder = getattr(runner, "_encoder", None)
        with clock.timing(runner, subsampling="_subsample"), clock.timing(encoder, layers="encode"):
            for _ in range(options.rounds):
                clock.time("turn", lambda clock=clock, step=step: step.run(clock))
        results[batch, chunk] = clock
        cells = {name: (round(wall, 1), round(clock.cpu[name], 1)) for name, wall in clock.wall.items()}
        print(runner.description, f"{batch} x {chunk * STEP_MS} ms", json.dumps(cells), flush=True)
    return results


class Step:
    """A step of rows with a full past."""

    def __init__(self, runner: StreamRunner[Any], batch: int, chunk: int) -> None:
        self.runner, self.chunk = runner, chunk
        self.state = runner.allocate(2 * batch)
        self.rows = np.random.default_rng(0).permutation(2 * batch)[:batch]
        self.mel = noise(batch, chunk * STEP_FRAMES, runner.config.encoder.features)
        self.frames = np.full(batch, chunk * STEP_FRAMES)

    def fill(self) -> None:
        """Fills the past of one row after another, in large chunks."""
        max_chunk = max(context.right + 1 for context in self.runner.config.encoder.contexts)
        mel = noise(1, max_chunk * STEP_FRAMES, self.mel.shape[2])
        for row in self.rows:
            for _ in range(-(-PAST // max_chunk)):
                self.runner.encode_chunk(mel, np.array([mel.shape[1]]), self.state, row[None])

    def run(self, clock: Clock) -> None:
        encoded, counts = clock.time(
            "encoder", lambda: self.runner.encode_chunk(self.mel, self.frames, self.state, self.rows)
        )
        clock.time("decoding", lambda: self.runner.decode_chunk(encoded, counts, self.state, self.rows))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


KERNELS = ("normalise", "quantise", "multiply", "attend", "filter")


def _print_operators(runner: CpuStreamRunner, folder: Path, options: argparse.Namespace) -> None:
    """Prints the time of each kind of operator in the layers."""
    native = isinstance(runner._encoder, NativeStreamEncoder)
    step = Step(runner, options.batches[-1], options.chunks[-1])
    step.fill()
    kinds = _native_operators(runner, step, options) if native else _graph_operators(runner, step, folder, options)
    print(f"{runner.description}, {options.batches[-1]} x {options.chunks[-1] * STEP_MS} ms")
    for kind, durations in sorted(kinds.items(), key=lambda pair: -sum(pair[1])):
        print(f"{kind:28} {sum(durations):8.2f} ms in {len(durations)}")


def _native_operators(runner: CpuStreamRunner, step: Step, options: argparse.Namespace) -> dict[str, list[float]]:
    """The best time of each call."""
    kernels, calls = runner._encoder.layers.kernels, collections.Counter[str]()
    best_ms: dict[tuple[str, int], float] = collections.defaultdict(lambda: float("inf"))

    def timed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started_at = time.perf_counter()
            result = inner(*args, **kwargs)
            place = (name, calls[name])
            best_ms[place] = min(best_ms[place], (time.perf_counter() - started_at) * 1000)
            calls[name] += 1
            return result

        return call

    for name in KERNELS:
        setattr(kernels, name, timed(name, getattr(kernels, name)))
    for _ in range(options.rounds):
        calls.clear()
        step.run(Clock())
    for name in KERNELS:
        delattr(kernels, name)
    return _by_kind((name, duration) for (name, _), duration in best_ms.items())


def _graph_operators(
    runner: CpuStreamRunner, step: Step, folder: Path, options: argparse.Namespace
) -> dict[str, list[float]]:
    """The best time of each node in ONNX Runtime's profile."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.enable_profiling = options.threads, True
    settings.profile_file_prefix = str(options.folder / "profile")
    settings.log_severity_level = 3
    runner._encoder._step = onnxruntime.InferenceSession(str(folder / STREAM_FILE), settings)
    for _ in range(options.rounds):
        step.run(Clock())
    path = Path(runner._encoder._step.end_profiling())
    best_ms: dict[tuple[str, str], float] = {}
    for event in json.loads(path.read_bytes()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = (event["args"]["op_name"], event["name"])
            best_ms[node] = min(best_ms.get(node, float("inf")), event["dur"] / 1000)
    path.unlink()
    return _by_kind((kind, duration) for (kind, _), duration in best_ms.items())


def _by_kind(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = collections.defaultdict(list)
    for kind, duration in pairs:
        kinds[kind].append(duration)
    return kinds


def _table(results: list[tuple[str, dict[tuple[int, int], Clock]]]) -> list[str]:
    head = ["runner", "chunk", "batch", "turn ms", "cpu ms", "streams", "subsampling", "layers", "around", "decoding"]
    rows = [head, ["---"] * len(head)]
    for description, cases in results:
        for (batch, chunk), clock in cases.items():
            wall = clock.wall
            parts = [wall["subsampling"], wall["layers"]] if "layers" in wall else [0.0, wall["encoder"]]
            numbers = [wall["turn"], clock.cpu["turn"], batch * chunk * STEP_MS / wall["turn"]]
            numbers += [*parts, wall["encoder"] - sum(parts), wall["decoding"]]
            rows.append([description, f"{chunk * STEP_MS} ms", str(batch), *(f"{number:.1f}" for number in numbers)])
    return ["| " + " | ".join(row) + " |" for row in rows]


if __name__ == "__main__":
    main()
