"""What a server is told, as `conure serve` takes it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

__all__ = ["Choice", "command", "flags"]

Choice = Mapping[str, str | int]
"""Settings by their names; what is not there is the server's own choice."""


def flags(choice: Choice) -> list[str]:
    return [text for name, value in choice.items() for text in ("--" + name.replace("_", "-"), str(value))]


def command(choice: Choice) -> str:
    """To be pasted into a shell."""
    return shlex.join(["conure", "serve", *flags(choice)])
