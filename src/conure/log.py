"""What happens, one line per event, on stderr: only warnings unless asked for more.

Every module logs to `logging.getLogger(__name__)`; what a user must know is not logged but raised or printed. Warnings
of libraries take the same way, but for those that repeat whatever a stranger sends.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Literal

from conure.safe_text import one_line

__all__ = ["Detail", "RateLimitedLog", "configure", "configured"]

Detail = Literal["quiet", "verbose", "debug"]

LEVELS = {"quiet": logging.WARNING, "verbose": logging.INFO, "debug": logging.DEBUG}
TALKATIVE = ("python_multipart", "python_multipart.multipart", "multipart", "multipart.multipart")
"""Libraries that warn of every form that is none."""


def configure(detail: Detail, *, as_json: bool = False) -> None:
    """Send all logs to stderr; calling it again replaces what was set. Python's warnings show in debug only."""
    handler = StderrHandler()
    handler.setFormatter(OneLine(detail, as_json=as_json))
    ours, others = logging.getLogger("conure"), logging.getLogger()
    ours.handlers[:] = [handler]
    ours.setLevel(LEVELS[detail])
    ours.propagate = False
    others.handlers[:] = [other for other in others.handlers if not isinstance(other, StderrHandler)] + [handler]
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING if detail == "debug" else logging.ERROR)
    if detail != "debug":
        warnings.simplefilter("ignore")


def configured() -> tuple[Detail, bool]:
    """What was set, for processes that are started: how much, and whether as JSON."""
    for handler in logging.getLogger("conure").handlers:
        if isinstance(handler.formatter, OneLine):
            return handler.formatter.detail, handler.formatter.as_json
    return "quiet", False


class RateLimitedLog:
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
    """`warning: message` when quiet; else time, level and place too. Errors have their traceback, and in debug all."""

    def __init__(self, detail: Detail, *, as_json: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.detail = detail
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        message = one_line(record.getMessage())
        traceback = self._traceback(record)
        level = record.levelname.lower()
        if self.as_json:
            fields = {"time": round(record.created, 3), "level": level, "place": record.name, "message": message}
            if stream := getattr(record, "stream", None):
                fields["stream"] = stream
            return json.dumps({"log": fields | ({"traceback": traceback} if traceback else {})})
        if self.detail == "quiet":
            line = f"{level}: {message}"
        else:
            line = f"{self.formatTime(record, self.datefmt)} {level:7} {record.name}: {message}"
        return f"{line}\n{traceback}" if traceback else line

    def _traceback(self, record: logging.LogRecord) -> str | None:
        is_shown = self.detail == "debug" or record.levelno >= logging.ERROR
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] and is_shown else None
