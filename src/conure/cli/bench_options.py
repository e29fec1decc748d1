"""Options of the server to measure, and interruption of measurements; shared by the commands of `conure bench`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from conure.bench.server_flags import ServerOptions
from conure.cli.setting_flags import HIDDEN, setting_flag
from conure.errors import ConureError
from conure.settings import with_current_names
from conure.types import RunnerChoice

__all__ = ["ServerFlags", "given_options", "interruptible"]


@Parameter(name="*")
@dataclass(frozen=True)
class ServerFlags:
    """Flags of the server to start."""

    device: Annotated[str | None, setting_flag("device")] = None
    runner: Annotated[RunnerChoice | None, setting_flag("runner")] = None
    threads: Annotated[int | None, setting_flag("threads")] = None
    max_streams: Annotated[int | None, setting_flag("max_streams")] = None
    slots: Annotated[int | None, HIDDEN] = None
    processes: Annotated[int | None, setting_flag("processes")] = None


def given_options(start: ServerFlags, **models: str | None) -> ServerOptions:
    """The options that were given."""
    return with_current_names(models | vars(start))


@dataclass
class Outcome:
    interrupted: bool = False


@contextlib.contextmanager
def interruptible() -> Iterator[Outcome]:
    """Ctrl-C and SIGTERM end the block but not the command, which then prints the results so far."""
    outcome = Outcome()

    def interrupt(*_: object) -> None:
        outcome.interrupted = True
        raise KeyboardInterrupt

    # asyncio keeps a custom handler. Its own would turn the interruption into a cancellation, which may get lost.
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.interrupted = True
    except ConureError:  # the server may have received the signal too, and exited first
        if not outcome.interrupted:
            raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
