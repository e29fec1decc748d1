"""File names as text that can be printed, logged and sent."""

from __future__ import annotations

import re

__all__ = ["printable_name"]

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Surrogates that Python uses for bytes of a file name that are not valid UTF-8."""


def printable_name(name: str) -> str:
    """A file name as valid UTF-8 text; invalid bytes are written as escapes such as \\xe9."""
    readable = NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return readable.encode("utf-8", "backslashreplace").decode()
