"""stderr of a process whose log is JSON: whatever writes there, every line of it is an object.

    our log, errors as JSON          as they are
    exceptions that nobody caught    one line, with the traceback in a field; in threads, too
    warnings                         one line each
    anything else                    a line each, as `message` of the place `stderr`

Lines that libraries in C write past Python are not seen here.
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
    """Writes on another stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rest = ""
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
            between = "\n" if self._rest and text.startswith("{") else ""  # an object never goes on with a line
            *lines, self._rest = (self._rest + between + text).split("\n")
            self._stream.write("".join(f"{_as_object(line)}\n" for line in lines if line.strip()))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Writes what has no end of a line yet."""
        if self._rest.strip():
            self.write("\n")
        self.flush()


def redirect_stderr() -> None:
    """Of this process; more than once does no harm."""
    if isinstance(sys.stderr, JsonStderr):
        return
    sys.stderr = taken = JsonStderr(sys.stderr)
    atexit.register(taken.finish)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


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


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _uncaught_in_thread(hooked: threading.ExceptHookArgs) -> None:
    error = hooked.exc_value or hooked.exc_type()
    name = hooked.thread.name if hooked.thread else "a thread"
    log.critical("%s ended with %s: %s", name, hooked.exc_type.__name__, error, exc_info=error)


def _unraisable(hooked: sys.UnraisableHookArgs) -> None:
    error = hooked.exc_value or hooked.exc_type()
    log.error("%s: %s", hooked.err_msg or "an exception was ignored", error, exc_info=error)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s: %s (%s:%s)", category.__name__, message, filename, lineno)
