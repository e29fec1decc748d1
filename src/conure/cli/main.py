"""The list of commands, and what becomes of errors that nobody caught.

Commands are loaded when they are called: `conure --help` imports none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnusedCliTokensError

from conure.cli.reporter import DONE, INTERRUPTED, Reporter
from conure.errors import BadOption, ConureError

__all__ = ["main", "run"]

EXAMPLES = """\
Examples:
  conure transcribe talk.mp3
  conure serve --model tiny
"""


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  no other command needs it

    return f"conure {version('conure')}"


app = App(
    name="conure",
    help="Speech to text on your own machine.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
    version=_version,
    version_format="plaintext",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.command("conure.cli.transcribe:app", name="transcribe", help="Recordings to text.")
app.command("conure.cli.serve:app", name="serve", help="A server for live audio and recordings.")
app.command("conure.cli.listen:app", name="listen", help="The microphone to words, as they are spoken.")
app.command("conure.cli.stream:app", name="stream", help="A recording to a server as live audio; what comes back.")
app.command("conure.cli.models:app", name="models", help="The models: list, download, describe, convert them.")
app.command("conure.cli.keys:app", name="keys", help="The API keys of a server: add, list, remove them.")
app.command("conure.cli.bench:app", name="bench", help="What this machine holds.")
app.command("conure.cli.doctor:app", name="doctor", help="What is installed, what is missing, what fixes it.")


def run() -> None:
    """The `conure` command."""
    for stream in (sys.stdout, sys.stderr):  # a name or a word that the terminal cannot show must not stop us
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line; the exit code."""
    report = Reporter(json="--json" in arguments, debug="--debug" in arguments)
    try:
        code = app(list(arguments))
        return code if isinstance(code, int) else DONE
    except CycloptsError as error:
        report.refuse(_usage_error(error))
    except ConureError as error:
        report.refuse(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
    except Exception as error:
        report.crash(error)
    return report.exit_code


def _usage_error(error: CycloptsError) -> BadOption:
    command = " ".join(["conure", *(error.command_chain or ())])
    stray = error.unused_tokens if isinstance(error, UnusedCliTokensError) else None
    message = f"it takes no {' '.join(stray)!r}" if stray else str(error)
    return BadOption(message, hint=f"`{command} --help` shows what it takes")


def _close_stdout() -> None:
    """Nobody reads on: what is still buffered goes nowhere, without a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
