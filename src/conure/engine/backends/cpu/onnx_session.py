"""Sessions of ONNX Runtime as we want them on a CPU that kernels use too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]

__all__ = ["open_session"]


def open_session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Planning which buffers may be shared takes seconds for thousands of nodes; they are freed as early without it.
    options.enable_mem_reuse = False
    # Between runs others have the processor: threads that wait must not spin.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
