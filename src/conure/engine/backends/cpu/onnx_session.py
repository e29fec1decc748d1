"""ONNX Runtime sessions, configured for a CPU that is shared with other threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]

__all__ = ["open_session"]


def open_session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Planning buffer reuse takes seconds for thousands of nodes; without it buffers are freed just as early.
    options.enable_mem_reuse = False
    # Idle threads must not spin: other threads need the CPU between runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
