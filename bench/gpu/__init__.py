"""Checks and benchmarks of a GPU: see `__main__`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))  # runs without an installation of Conure
