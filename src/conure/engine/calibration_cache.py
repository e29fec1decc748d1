"""What turns of a model cost when they were measured, kept in the cache for the next start on the same machine."""

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
from conure.engine.calibration_checks import Turns
from conure.engine.plan import ModelInfo
from conure.native.library import LIBRARY_PATH

__all__ = ["CalibrationCache"]

log = logging.getLogger(__name__)

PACKAGES = ("conure", "numpy", "onnxruntime", "torch")


@dataclass(frozen=True)
class CalibrationCache:
    path: Path
    about: dict[str, Any]
    """The machine, the versions and the model that what is kept holds for."""

    @staticmethod
    def of(cache: Path, source: Path, card: ModelInfo, slots: int) -> CalibrationCache:
        """Of a model that was read from a file or a folder, and has rows for so many streams."""
        about = {
            "machine": [platform.node(), platform.machine(), _processor(), core_count()],
            "versions": [version(package) for package in PACKAGES],
            "kernels": LIBRARY_PATH.stat().st_mtime_ns if LIBRARY_PATH.exists() else None,
            "model": [str(source), source.stat().st_mtime_ns],
            "runner": card.runner,
            "latencies": list(card.latencies),
            "slots": slots,
        }
        name = sha256(f"{source} {card.runner}".encode()).hexdigest()[:16]
        return CalibrationCache(cache / "turns" / f"{name}.json", about)

    def read(self) -> Turns | None:
        """None where nothing is kept, or for something else."""
        try:
            kept = json.loads(self.path.read_bytes())
            if kept["about"] != self.about:
                return None
            turns = {
                int(latency): [(int(rows), float(spent)) for rows, spent in pairs] for latency, pairs in kept["turns"]
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = list(turns) == self.about["latencies"] and all(turns.values())
        return turns if whole else None

    def write(self, turns: Turns) -> None:
        """Where the cache cannot be written the next start measures again."""
        text = json.dumps({"about": self.about, "turns": list(turns.items())}, indent=1)
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            log.info("what turns cost is not kept: %s", error)


def _processor() -> str:
    """Its name, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
