"""Turns off the usage statistics of libraries, before any of them is imported."""

from __future__ import annotations

import os

__all__ = ["TELEMETRY_VARIABLES", "disable_telemetry"]

TELEMETRY_VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime sends by default since 1.29; read on import
    "ORT_TELEMETRY_DISABLED": "1",  # its name in earlier builds
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub and hf-xet send installed packages to the hub
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Environment variables and their values."""


def disable_telemetry() -> None:
    """Sets the variables that are not set; child processes inherit them.

    ONNX Runtime's `disable_telemetry_events` is too late: importing the package writes a device id and starts the
    uploader.
    """
    for name, value in TELEMETRY_VARIABLES.items():
        os.environ.setdefault(name, value)
