"""Error messages on stderr, as text or as JSON; and the exit codes.

0    success
1    Conure, the machine or a server failed
2    invalid arguments or inputs
130  interrupted with Ctrl-C
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from conure import log
from conure.errors import Busy, ConureError, EngineFailed, OutOfMemory
from conure.safe_text import one_line

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "DEFAULT_COMMON",
    "REFUSED",
    "Common",
    "Reporter",
    "console",
    "print_stderr",
]

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options that every command takes."""

    json: Annotated[bool, Parameter(name="--json", negative="")] = False
    """Write errors as JSON lines on stderr; lists and reports as JSON on stdout."""

    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False
    """Log events on stderr, one line each."""

    debug: Annotated[bool, Parameter(name="--debug", negative="")] = False
    """Log everything, and show tracebacks."""

    def begin(self) -> Reporter:
        """Configures logging and returns the reporter of errors."""
        log.configure("debug" if self.debug else "verbose" if self.verbose else "quiet", as_json=self.json)
        return Reporter(json=self.json, debug=self.debug)


FAILURES = (Busy, EngineFailed, OutOfMemory)
"""Errors with exit code 1; others are caused by arguments or inputs."""
DEFAULT_COMMON = Common()


class Reporter:
    """Prints errors and keeps the exit code."""

    def __init__(self, *, json: bool = False, debug: bool = False) -> None:
        self.json = json
        self.debug = debug
        self.exit_code = DONE

    def report_error(self, error: ConureError, source: str | None = None) -> None:
        """Prints an error of Conure; `source` is the input that it occurred with."""
        message = error.message if source is None or source in error.message else f"{source}: {error.message}"
        self._print_error(error.code, message, error.hint, source)
        self.exit_code = FAILED if isinstance(error, FAILURES) else self.exit_code or REFUSED

    def report_server_error(self, code: str, message: str, hint: str | None) -> None:
        """Prints an error that a server reported."""
        self._print_error(code, message, hint, None)
        self.exit_code = FAILED

    def report_crash(self, error: Exception, source: str | None = None) -> None:
        """Prints an unexpected exception."""
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        message = f"Conure failed: {what}" if source is None else f"{source}: Conure failed: {what}"
        hint = None if self.debug else "use --debug for the traceback; `conure doctor` checks the installation"
        self._print_error("internal", message, hint, source)
        self.exit_code = FAILED

    def _print_error(self, code: str, message: str, hint: str | None, source: str | None) -> None:
        message, hint = one_line(message), hint and one_line(hint)
        if self.json:
            fields = {"code": code, "message": message, "hint": hint, "input": source}
            print_stderr(json.dumps({"error": fields}))
        else:
            _write("error", "bold red", message)
            if hint:
                _write("hint", "bold cyan", hint)
        if self.debug and sys.exc_info()[0] is not None:
            traceback.print_exc()


def print_stderr(text: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@cache
def console() -> Console:
    """Stderr; in colour on a terminal unless NO_COLOR is set."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _write(label: str, style: str, message: str) -> None:
    console().print(Text.assemble((label, style), ": ", message), soft_wrap=True)
