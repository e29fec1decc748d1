"""Names and messages of others, as text that can be printed, logged and sent."""

from __future__ import annotations

import re

__all__ = ["one_line", "shown"]

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes of a file's name that are no UTF-8, as Python holds them."""


def shown(name: str) -> str:
    """A file's name as text that UTF-8 can hold: bytes that are none of it are written \\xe9."""
    readable = NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return readable.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """The text without line breaks, and without characters that a terminal would obey."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in joined)
