"""The list of commands, and the handling of their exceptions.

Command modules are imported lazily: `conure --help` imports none of them.
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
app.command("conure.cli.transcribe:app", name="transcribe", help="Transcribe recordings.")
app.command("conure.cli.serve:app", name="serve", help="Run a server for live audio and recordings.")
app.command("conure.cli.listen:app", name="listen", help="Transcribe the microphone live.")
app.command("conure.cli.stream:app", name="stream", help="Stream a recording to a server as live audio.")
app.command("conure.cli.models:app", name="models", help="List, download, describe and convert models.")
app.command("conure.cli.keys:app", name="keys", help="Add, list and remove the API keys of a server.")
app.command("conure.cli.bench:app", name="bench", help="Measure the capacity of this machine.")
app.command("conure.cli.doctor:app", name="doctor", help="Check the installation.")


def run() -> None:
    """The `conure` command."""
    for stream in (sys.stdout, sys.stderr):  # a name or a word that the terminal cannot show must not stop us
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    report = Reporter(json="--json" in arguments, debug="--debug" in arguments)
    try:
        code = app(list(arguments))
        return code if isinstance(code, int) else DONE
    except CycloptsError as error:
        report.report_error(_usage_error(error))
    except ConureError as error:
        report.report_error(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
    except Exception as error:
        report.report_crash(error)
    return report.exit_code


def _usage_error(error: CycloptsError) -> BadOption:
    command = " ".join(["conure", *(error.command_chain or ())])
    unused = error.unused_tokens if isinstance(error, UnusedCliTokensError) else None
    message = f"unexpected argument {' '.join(unused)!r}" if unused else str(error)
    return BadOption(message, hint=f"see `{command} --help`")


def _close_stdout() -> None:
    """Redirects stdout to /dev/null, so that Python's flush at exit does not fail on a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
