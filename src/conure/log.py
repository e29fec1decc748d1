"""What happens, one line per event, on stderr: only warnings unless asked for more.

Every module logs to `logging.getLogger(__name__)`; what a user must know is not logged but raised or printed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Literal

__all__ = ["Detail", "Rarely", "configure", "configured"]

Detail = Literal["quiet", "verbose", "debug"]

LEVELS = {"quiet": logging.WARNING, "verbose": logging.INFO, "debug": logging.DEBUG}


def configure(detail: Detail, *, as_json: bool = False) -> None:
    """Send our log to stderr; calling it again replaces what was set. Other people's warnings show in debug only."""
    handler = StderrHandler()
    handler.setFormatter(OneLine(detail, as_json=as_json))
    ours = logging.getLogger("conure")
    ours.handlers[:] = [handler]
    ours.setLevel(LEVELS[detail])
    ours.propagate = False
    if detail != "debug":
        warnings.simplefilter("ignore")


def configured() -> tuple[Detail, bool]:
    """What was set, for processes that are started: how much, and whether as JSON."""
    for handler in logging.getLogger("conure").handlers:
        if isinstance(handler.formatter, OneLine):
            return handler.formatter.detail, handler.formatter.as_json
    return "quiet", False


class Rarely:
    """Lines about what strangers can make happen as often as they like: one of each in so many seconds."""

    def __init__(self, log: logging.Logger, seconds: float = 10.0) -> None:
        self._log, self._seconds = log, seconds
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, message: str, *args: object) -> None:
        self._write(logging.WARNING, message, args)

    def error(self, message: str, *args: object) -> None:
        self._write(logging.ERROR, message, args)

    def _write(self, level: int, message: str, args: tuple[object, ...]) -> None:
        """`message` tells which lines are alike."""
        now = time.monotonic()
        if now - self._last.get(message, float("-inf")) < self._seconds:
            self._left_out[message] = self._left_out.get(message, 0) + 1
            return
        self._last[message] = now
        left_out = self._left_out.pop(message, 0)
        told = f" ({left_out} more since the last time)" if left_out else ""
        self._log.log(level, "%s%s", message % args, told, stacklevel=3)


class StderrHandler(logging.Handler):
    """Writes to what stderr is at that moment, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class OneLine(logging.Formatter):
    """`warning: message` when quiet; else time, level and place too; a traceback only in debug."""

    def __init__(self, detail: Detail, *, as_json: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.detail = detail
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().split())
        level = record.levelname.lower()
        if self.as_json:
            fields = {"time": round(record.created, 3), "level": level, "place": record.name, "message": message}
            if stream := getattr(record, "stream", None):
                fields["stream"] = stream
            return json.dumps({"log": fields})
        if self.detail == "quiet":
            return f"{level}: {message}"
        line = f"{self.formatTime(record, self.datefmt)} {level:7} {record.name}: {message}"
        if record.exc_info and self.detail == "debug":
            line += "\n" + self.formatException(record.exc_info)
        return line
