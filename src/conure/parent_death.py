"""Child processes end with their parent, even if they are stopped (SIGSTOP) and cannot notice that it is gone."""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["notice_parent_end"]

SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


def notice_parent_end() -> None:
    """Makes the kernel continue this process (SIGCONT) when its parent ends, so that it sees its socket closed.

    Otherwise a stopped process would hold its ports and memory forever. On Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGCONT)
