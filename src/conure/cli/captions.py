"""Live text on stdout: on a terminal each partial replaces the one before, elsewhere each event is a line."""

from __future__ import annotations

import shutil
import sys
from typing import Any, Literal

import msgspec
from rich.cells import cell_len

from conure.cli.outputs import write_stdout
from conure.client import Event, Final, Partial
from conure.safe_text import one_line

__all__ = ["Captions", "StreamFormat"]

StreamFormat = Literal["text", "json"]

CLEAR_LINE = "\r\x1b[K"


class Captions:
    """Prints events as they arrive; partials and finals with their lag in seconds."""

    def __init__(self, output_format: StreamFormat) -> None:
        self._format = output_format
        self._rewrites = output_format == "text" and sys.stdout.isatty()
        self._is_open = False

    def show(self, event: Event, lag: float | None) -> None:
        if self._format == "json":
            fields: dict[str, Any] = msgspec.to_builtins(event)
            write_stdout(msgspec.json.encode(fields | ({} if lag is None else {"lag": round(lag, 3)})).decode() + "\n")
        elif isinstance(event, Partial):
            self._show_partial(event, lag)
        elif isinstance(event, Final):
            self._show_final(event, lag)

    def close(self) -> None:
        """Ends an unfinished line on the terminal."""
        if self._is_open:
            self._is_open = False
            write_stdout("\n")

    def _show_partial(self, event: Partial, lag: float | None) -> None:
        text = one_line(event.stable + event.tail)
        if self._rewrites:
            self._is_open = True
            write_stdout(CLEAR_LINE + _fit_end(text, shutil.get_terminal_size().columns - 1))
        else:
            write_stdout(_line("partial", event.until, lag, text))

    def _show_final(self, event: Final, lag: float | None) -> None:
        text = one_line(event.text)
        if self._rewrites:
            self._is_open = False
            write_stdout(f"{CLEAR_LINE}{text}{'' if lag is None else f'  ({lag:.2f} s)'}\n")
        else:
            write_stdout(_line("final", event.end, lag, text))


def _line(kind: str, seconds: float, lag: float | None, text: str) -> str:
    return "\t".join([kind, f"{seconds:.2f}", "" if lag is None else f"{lag:.3f}", text]) + "\n"


def _fit_end(text: str, columns: int) -> str:
    """The end of the text that fits into so many columns."""
    text = text[-max(1, columns) :]
    while cell_len(text) > columns and text:
        text = text[1:]
    return text
