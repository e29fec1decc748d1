"""Description of the machine, for reports."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil

__all__ = ["machine", "machine_line"]

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"cores": os.cpu_count(), "system": platform.platform(), "load": psutil.getloadavg()}
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    facts["processor"] = fields.get("model name", platform.processor())
    facts["instructions"] = [kind for kind in INSTRUCTIONS if kind in fields.get("flags", "").split()]
    return facts


def machine_line() -> str:
    """Processor and number of cores, as text."""
    facts = machine()
    return f"{' '.join(facts['processor'].split())}, {facts['cores']} cores"
