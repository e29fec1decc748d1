"""stderr of a process that logs JSON: every line is an object, whatever code writes it.

    log lines, errors as JSON    unchanged
    uncaught exceptions          one line, with the traceback in a field; also those of threads
    warnings                     one line each
    any other line               an object with the line as `message` and `stderr` as `place`

Lines that C libraries write without Python are not converted.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import sys
import threading
import time
import warnings
from types import TracebackType
from typing import TextIO

from conure.safe_text import one_line

__all__ = ["JsonStderr", "redirect_stderr"]

log = logging.getLogger("conure")

PLACE = "stderr"


class JsonStderr(io.TextIOBase):
    """A text stream that writes to another one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._incomplete = ""
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with self._lock:
            between = "\n" if self._incomplete and text.startswith("{") else ""  # an object starts a new line
            *lines, self._incomplete = (self._incomplete + between + text).split("\n")
            self._stream.write("".join(f"{_as_object(line)}\n" for line in lines if line.strip()))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Writes the incomplete last line."""
        if self._incomplete.strip():
            self.write("\n")
        self.flush()


def redirect_stderr() -> None:
    """Replaces `sys.stderr` and the hooks for uncaught exceptions; idempotent."""
    if isinstance(sys.stderr, JsonStderr):
        return
    sys.stderr = wrapped = JsonStderr(sys.stderr)
    atexit.register(wrapped.finish)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_exception
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def _as_object(line: str) -> str:
    if line.startswith("{"):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            pass
        else:
            return line
    fields = {"time": round(time.time(), 3), "level": "info", "place": PLACE, "message": one_line(line)}
    return json.dumps({"log": fields})


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    name = args.thread.name if args.thread else "a thread"
    log.critical("%s ended with %s: %s", name, args.exc_type.__name__, error, exc_info=error)


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    log.error("%s: %s", args.err_msg or "an exception was ignored", error, exc_info=error)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s: %s (%s:%s)", category.__name__, message, filename, lineno)
