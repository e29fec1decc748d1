"""Names of files of others, as text that can be printed, logged and sent."""

from __future__ import annotations

import re

__all__ = ["printable_name"]

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes of a file's name that are no UTF-8, as Python holds them."""


def printable_name(name: str) -> str:
    """A file's name as text that UTF-8 can hold: bytes that are none of it are written \\xe9."""
    readable = NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return readable.encode("utf-8", "backslashreplace").decode()
