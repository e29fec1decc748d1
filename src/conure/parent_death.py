"""Processes that end with their parent, also where they are stopped and cannot notice that it has gone."""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["notice_parent_end"]

SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


def notice_parent_end() -> None:
    """From now on this process goes on when its parent ends, and finds its socket closed: else one that is stopped
    would keep its ports and its memory for ever. Linux alone; where it cannot be had nothing is lost but that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGCONT)
