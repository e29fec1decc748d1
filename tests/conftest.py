"""What all tests share.

Without a GPU, Triton interprets the kernels. It decides so when it is first imported, whoever does that.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
from pathlib import Path

import pytest
import torch

# Who starts tests in the background may have them ignore it, and what they start would do so, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

KERNELS = (
    *("clip_attention", "filter_step", "joint_step", "label_step", "lstm_step"),
    *("ring_attention", "token_scores"),
)

if not torch.cuda.is_available():
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ImportError):
        patch.setenv("TRITON_INTERPRET", "1")
        for name in KERNELS:
            importlib.import_module(f"conure.fused.{name}_kernel")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of servers: a model is converted for the first of them alone."""
    return tmp_path_factory.mktemp("cache")
