"""What a card can do, checked and measured: see `__main__`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))  # nothing need be installed where the card is
