"""Logging: one line per event on stderr; by default only warnings.

Every module logs to `logging.getLogger(__name__)`; what a user must know is raised or printed instead. Libraries log
the same way, except for those that warn about every malformed request.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Literal

from conure.safe_text import one_line

__all__ = ["Detail", "RateLimitedLog", "configure", "current_config"]

Detail = Literal["quiet", "verbose", "debug"]

LEVELS = {"quiet": logging.WARNING, "verbose": logging.INFO, "debug": logging.DEBUG}
NOISY = ("python_multipart", "python_multipart.multipart", "multipart", "multipart.multipart")
"""Libraries that warn about every malformed form."""


def configure(detail: Detail, *, as_json: bool = False) -> None:
    """Sends all logs to stderr; a second call replaces the configuration. Python's warnings are shown in debug only."""
    handler = StderrHandler()
    handler.setFormatter(OneLine(detail, as_json=as_json))
    conure, root = logging.getLogger("conure"), logging.getLogger()
    conure.handlers[:] = [handler]
    conure.setLevel(LEVELS[detail])
    conure.propagate = False
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, StderrHandler)] + [handler]
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING if detail == "debug" else logging.ERROR)
    if detail != "debug":
        warnings.simplefilter("ignore")


def current_config() -> tuple[Detail, bool]:
    """The configuration, to be passed to child processes: level of detail, and whether logs are JSON."""
    for handler in logging.getLogger("conure").handlers:
        if isinstance(handler.formatter, OneLine):
            return handler.formatter.detail, handler.formatter.as_json
    return "quiet", False


class RateLimitedLog:
    """Limits lines that any client can cause at will: at most one of each message in so many seconds."""

    def __init__(self, log: logging.Logger, seconds: float = 10.0) -> None:
        self._log, self._seconds = log, seconds
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def warning(self, message: str, *args: object) -> None:
        self._write(logging.WARNING, message, args)

    def error(self, message: str, *args: object) -> None:
        self._write(logging.ERROR, message, args)

    def _write(self, level: int, message: str, args: tuple[object, ...]) -> None:
        """Lines with the same `message` (before formatting) are limited together."""
        now = time.monotonic()
        if now - self._last.get(message, float("-inf")) < self._seconds:
            self._suppressed[message] = self._suppressed.get(message, 0) + 1
            return
        self._last[message] = now
        suppressed = self._suppressed.pop(message, 0)
        note = f" ({suppressed} more since the last time)" if suppressed else ""
        self._log.log(level, "%s%s", message % args, note, stacklevel=3)


class StderrHandler(logging.Handler):
    """Looks `sys.stderr` up for each record, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class OneLine(logging.Formatter):
    """`warning: message` if quiet; else with time, level and module. Tracebacks of errors; in debug, of all levels."""

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
