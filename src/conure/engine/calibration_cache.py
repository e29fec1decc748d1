"""The step times of a calibration, cached for the next start on the same machine."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conure.cpu_count import core_count
from conure.engine.calibration_checks import StepTimes
from conure.engine.plan import ModelInfo
from conure.native.library import LIBRARY_PATH

__all__ = ["CalibrationCache"]

log = logging.getLogger(__name__)

PACKAGES = ("conure", "numpy", "onnxruntime", "torch")


@dataclass(frozen=True)
class CalibrationCache:
    path: Path
    about: dict[str, Any]
    """The machine, the versions and the model that the times are valid for."""

    @staticmethod
    def open(folder: Path, source: Path, info: ModelInfo, slots: int) -> CalibrationCache:
        """For a model from a file or folder, with so many slots."""
        about = {
            "machine": [platform.node(), platform.machine(), _processor_name(), core_count()],
            "versions": [version(package) for package in PACKAGES],
            "kernels": LIBRARY_PATH.stat().st_mtime_ns if LIBRARY_PATH.exists() else None,
            "model": [str(source), source.stat().st_mtime_ns],
            "runner": info.runner,
            "latencies": list(info.latencies),
            "slots": slots,
        }
        name = sha256(f"{source} {info.runner}".encode()).hexdigest()[:16]
        return CalibrationCache(folder / "turns" / f"{name}.json", about)

    def read(self) -> StepTimes | None:
        """None when nothing valid is cached."""
        try:
            cached = json.loads(self.path.read_bytes())
            if cached["about"] != self.about:
                return None
            times = {
                int(latency): [(int(rows), float(seconds)) for rows, seconds in pairs]
                for latency, pairs in cached["turns"]
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_complete = list(times) == self.about["latencies"] and all(times.values())
        return times if is_complete else None

    def write(self, times: StepTimes) -> None:
        """Without a writable cache the next start calibrates again."""
        text = json.dumps({"about": self.about, "turns": list(times.items())}, indent=1)
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            log.info("could not write the calibration cache: %s", error)


def _processor_name() -> str:
    """Name of the processor; from /proc/cpuinfo on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
