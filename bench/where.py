"""Where our time goes: features, subsampling, encoder, decoding of one clip; and the encoder's operators.

    python -m bench.where --models FOLDER [--runner onnx-int8] [--seconds 30] [--threads 2]

Writes its tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.audio import speech
from bench.report import replace_between
from conure.engine.graph_names import ENCODER_FILE
from conure.engine.onnx_runner import OnnxRunner
from conure.engine.opening import open_runner
from conure.models.slices import finish

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--runner", default="onnx-int8", choices=["onnx-int8", "onnx-fp32"])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, default=Path(__file__).parents[1] / "docs" / "performance.md")
    options = parser.parse_args()
    runner, _ = open_runner(
        options.models / "conure", runner=options.runner, cache=options.models / "cache", threads=options.threads
    )
    assert isinstance(runner, OnnxRunner)
    parts = by_part(runner, options.seconds)
    operators = by_operator(runner, options.seconds, options.threads)
    text = "\n\n".join([f"{runner.description}, {options.seconds:.0f} s", _table(parts), _table(operators)])
    print(text)
    replace_between(options.report, f"where {options.models.name} {options.runner}", text)


def by_part(runner: OnnxRunner, seconds: float) -> dict[str, float]:
    """Milliseconds of each part, the least of some rounds."""
    samples = speech(seconds)[None]
    lengths = np.array([samples.shape[1]])
    found: dict[str, list[float]] = collections.defaultdict(list)
    with _timed(runner, "features", found), _timed(runner, "_subsample", found):
        for _ in range(ROUNDS):
            encoded, counts = _time("encode", found, lambda: finish(runner.encode(samples, lengths)))
            _time(
                "decoding", found, lambda encoded=encoded, counts=counts: finish(runner.decoder.decode(encoded, counts))
            )
    least = {name: min(times) * 1000 for name, times in found.items()}
    rest = least["encode"] - least["features"] - least["_subsample"]
    return {
        "features": least["features"],
        "subsampling": least["_subsample"],
        "encoder": rest,
        "decoding": least["decoding"],
        "all": least["encode"] + least["decoding"],
    }


def _time(name: str, found: dict[str, list[float]], call: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = call()
    found[name].append(time.perf_counter() - begin)
    return result


@contextmanager
def _timed(runner: OnnxRunner, name: str, found: dict[str, list[float]]) -> Iterator[None]:
    """Times an attribute of the runner while it is called as ever."""
    inner = getattr(runner, name)
    object.__setattr__(runner, name, lambda *given: _time(name, found, lambda: inner(*given)))
    try:
        yield
    finally:
        object.__setattr__(runner, name, inner)


def by_operator(runner: OnnxRunner, seconds: float, threads: int) -> dict[str, float]:
    """Milliseconds of each kind of operator of the encoder, the least of some rounds of every node."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = threads, True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(runner.folder / ENCODER_FILE), options)
        samples = speech(seconds)[None]
        given = _capture(runner, samples)
        for _ in range(ROUNDS):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_bytes())
    nodes: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = (event["args"]["op_name"], event["name"])
            nodes[node] = min(nodes.get(node, float("inf")), event["dur"] / 1000)
    kinds: dict[str, float] = collections.Counter()
    for (kind, _), least in nodes.items():
        kinds[kind] += least
    return dict(sorted(kinds.items(), key=lambda pair: -pair[1])[:12])


def _capture(runner: OnnxRunner, samples: np.ndarray) -> dict[str, Any]:
    """What the runner gives the encoder for a clip."""
    encoder, given = runner.encoder, {}

    class Recorder:
        def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
            given.update(inputs)
            return encoder.run(names, inputs)

    runner.encoder = Recorder()
    finish(runner.encode(samples, np.array([samples.shape[1]])))
    runner.encoder = encoder
    return given


def _table(numbers: dict[str, float]) -> str:
    rows = [f"| {name} | {value:.1f} |" for name, value in numbers.items()]
    return "\n".join(["| part | ms |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
