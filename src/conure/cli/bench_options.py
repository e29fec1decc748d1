"""What the commands of `conure bench` share: the server that is measured, and how an interruption ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from conure.bench.server_flags import Choice
from conure.cli.setting_flags import HIDDEN, setting_flag
from conure.errors import ConureError
from conure.settings import with_current_names
from conure.types import RunnerChoice

__all__ = ["Start", "chosen", "interruptible"]


@Parameter(name="*")
@dataclass(frozen=True)
class Start:
    """How a server is started."""

    device: Annotated[str | None, setting_flag("device")] = None
    runner: Annotated[RunnerChoice | None, setting_flag("runner")] = None
    threads: Annotated[int | None, setting_flag("threads")] = None
    max_streams: Annotated[int | None, setting_flag("max_streams")] = None
    slots: Annotated[int | None, HIDDEN] = None
    processes: Annotated[int | None, setting_flag("processes")] = None


def chosen(start: Start, **models: str | None) -> Choice:
    """What was given of it."""
    return with_current_names(models | vars(start))


@dataclass
class Outcome:
    interrupted: bool = False


@contextlib.contextmanager
def interruptible() -> Iterator[Outcome]:
    """Ctrl-C ends what is inside, not the command: what was found so far is printed. Being told to end is the same."""
    outcome = Outcome()

    def interrupt(*_: object) -> None:
        outcome.interrupted = True
        raise KeyboardInterrupt

    # A handler of its own, which asyncio leaves in place: there an interruption is a cancellation, which may be lost.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.interrupted = True
    except ConureError:  # the server may have been told, too, and have ended first
        if not outcome.interrupted:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
