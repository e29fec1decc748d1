"""Messages for full file systems: the folder, the space that is needed and the space that is free."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

__all__ = ["is_disk_full", "no_space_message"]

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed because the disk is full; safetensors reports the error number in its message only."""
    return getattr(error, "errno", None) in DISK_FULL_ERRORS or any(
        f"(os error {number})" in str(error) for number in DISK_FULL_ERRORS
    )


def no_space_message(folder: Path, needed: int | None) -> str:
    """The part of an error message that tells the folder and its space."""
    existing = folder.expanduser().absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        free = _size(shutil.disk_usage(existing).free)
    except OSError:
        free = "an unknown amount"
    need = f"{_size(needed)} needed, " if needed is not None else ""
    return f"no space is left in {os.fspath(folder)} ({need}{free} free)"


def _size(count: int) -> str:
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_of:
            return f"{count / bytes_of:.1f} {unit}"
    return f"{count} bytes"
