"""What is said on stderr when something goes wrong, to a person or to a program; and the exit codes.

0    everything was done
1    Conure failed: a bug, or the machine or a server gave out
2    the call cannot be done as it stands, or not for every input
130  stopped with Ctrl-C
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

__all__ = ["DONE", "FAILED", "INTERRUPTED", "PLAIN", "REFUSED", "Common", "Reporter", "console", "tell"]

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options that every command takes."""

    json: Annotated[bool, Parameter(name="--json", negative="")] = False
    """Write errors as JSON lines on stderr; lists and reports as JSON on stdout."""

    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False
    """Log what happens, one line per event, on stderr."""

    debug: Annotated[bool, Parameter(name="--debug", negative="")] = False
    """Log everything, and show tracebacks."""

    def begin(self) -> Reporter:
        """Set up the log; what to tell failures to."""
        log.configure("debug" if self.debug else "verbose" if self.verbose else "quiet", as_json=self.json)
        return Reporter(json=self.json, debug=self.debug)


OURS = (Busy, EngineFailed, OutOfMemory)
PLAIN = Common()
"""None of them given."""


class Reporter:
    """Tells failures, and remembers the exit code that they lead to."""

    def __init__(self, *, json: bool = False, debug: bool = False) -> None:
        self.json = json
        self.debug = debug
        self.exit_code = DONE

    def refuse(self, error: ConureError, source: str | None = None) -> None:
        """A mistake we know; `source` is the input it happened with. Not the caller's fault, it counts as a failure."""
        message = error.message if source is None or source in error.message else f"{source}: {error.message}"
        self._tell(error.code, message, error.hint, source)
        self.exit_code = FAILED if isinstance(error, OURS) else self.exit_code or REFUSED

    def fail(self, code: str, message: str, hint: str | None) -> None:
        """Somebody else's mistake, such as a server's."""
        self._tell(code, message, hint, None)
        self.exit_code = FAILED

    def crash(self, error: Exception, source: str | None = None) -> None:
        """A mistake of ours."""
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        message = f"Conure failed: {what}" if source is None else f"{source}: Conure failed: {what}"
        hint = None if self.debug else "run it again with --debug for the traceback; `conure doctor` checks the machine"
        self._tell("internal", message, hint, source)
        self.exit_code = FAILED

    def _tell(self, code: str, message: str, hint: str | None, source: str | None) -> None:
        message, hint = one_line(message), hint and one_line(hint)
        if self.json:
            fields = {"code": code, "message": message, "hint": hint, "input": source}
            tell(json.dumps({"error": fields}))
        else:
            _write("error", "bold red", message)
            if hint:
                _write("hint", "bold cyan", hint)
        if self.debug and sys.exc_info()[0] is not None:
            traceback.print_exc()


def tell(text: str) -> None:
    """A line on stderr as it is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@cache
def console() -> Console:
    """Stderr, in colour where that is wanted: on a terminal, without NO_COLOR."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _write(label: str, style: str, message: str) -> None:
    console().print(Text.assemble((label, style), ": ", message), soft_wrap=True)
