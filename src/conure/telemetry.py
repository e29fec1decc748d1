"""Usage statistics of libraries, switched off before any of them is imported."""

from __future__ import annotations

import os

__all__ = ["TELEMETRY_VARIABLES", "disable_telemetry"]

TELEMETRY_VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime sends by default from 1.29 on, and reads this when it is imported
    "ORT_TELEMETRY_DISABLED": "1",  # the name of the same in builds before that release
    "HF_HUB_DISABLE_TELEMETRY": "1",  # for huggingface_hub and hf-xet, which tell the hub what is installed
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Environment variables and what they are set to."""


def disable_telemetry() -> None:
    """Sets what is not set; processes that are started later inherit it.

    ONNX Runtime's `disable_telemetry_events` is no substitute: importing it writes a device id and starts the uploader.
    """
    for name, value in TELEMETRY_VARIABLES.items():
        os.environ.setdefault(name, value)
