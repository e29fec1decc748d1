"""Command lines of `conure serve`. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

__all__ = ["ServerOptions", "command", "flags"]

ServerOptions = Mapping[str, str | int]
"""Values of settings by name; settings that are missing keep the server's default."""


def flags(options: ServerOptions) -> list[str]:
    return [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), str(value))]


def command(options: ServerOptions) -> str:
    """The command line, quoted for a shell."""
    return shlex.join(["conure", "serve", *flags(options)])
