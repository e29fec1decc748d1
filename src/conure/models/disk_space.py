"""What is said where a file system has no room: which folder, how much is needed, how much is free."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

__all__ = ["is_disk_full", "no_space_message"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_disk_full(error: BaseException) -> bool:
    """Whether that is why something was not written; the library of safetensors tells it in its message alone."""
    return getattr(error, "errno", None) in FULL or any(f"(os error {number})" in str(error) for number in FULL)


def no_space_message(folder: Path, needed: int | None) -> str:
    """The sentence, without what was to be written."""
    there = folder.expanduser().absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = _size(shutil.disk_usage(there).free)
    except OSError:
        free = "an unknown amount"
    wanted = f"{_size(needed)} needed, " if needed is not None else ""
    return f"no space is left in {os.fspath(folder)} ({wanted}{free} free)"


def _size(count: int) -> str:
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_of:
            return f"{count / bytes_of:.1f} {unit}"
    return f"{count} bytes"
