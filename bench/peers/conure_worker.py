"""Conure as a user calls it; `runner` is torch, onnx-fp32 or onnx-int8."""

import os
from pathlib import Path

import harness
import numpy as np

import conure
from conure.engine.lanes.clips import transcribe_clips


def load(task: dict) -> tuple[harness.Transcribe, str]:
    options = {"runner": task["runner"], "threads": task["threads"], "cache": Path(task["cache"])}
    recognizer = conure.load(task["model"], device="cpu", **options)

    def transcribe(paths: list[Path], clips: list[np.ndarray]) -> int:
        if max(map(len, clips)) > 60 * 16_000:
            return sum(len(recognizer.transcribe(path).text) for path in paths)
        return sum(map(len, transcribe_clips(recognizer.runner, clips)))

    return transcribe, f"conure {conure.__version__}, {recognizer.runner.description}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    harness.serve(load)
