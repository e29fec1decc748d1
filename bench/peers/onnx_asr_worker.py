"""onnx-asr; `quantization` is null, int8 or int8-matmul."""

from importlib.metadata import version
from pathlib import Path

import harness
import numpy as np
import onnx_asr
import onnxruntime


def load(task: dict) -> tuple[harness.Transcribe, str]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    options.log_severity_level = 3
    model = onnx_asr.load_model(
        "nemo-conformer-tdt",
        Path(task["model"]),
        quantization=task.get("quantization"),
        sess_options=options,
        providers=["CPUExecutionProvider"],
    ).with_timestamps()

    def transcribe(paths: list, clips: list[np.ndarray]) -> int:
        found = model.recognize(clips, sample_rate=16_000)
        return sum(len(one.tokens) for one in found)

    return transcribe, f"onnx-asr {version('onnx-asr')}, onnxruntime {onnxruntime.__version__}"


if __name__ == "__main__":
    harness.serve(load)
