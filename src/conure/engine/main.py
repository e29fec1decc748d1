"""The engine's own process: threads read requests and write answers, the main one runs the loop.

It ends when the socket of whoever started it does, so it never outlives that, also where a turn does not return.
Others may connect to it as well. Where its device fails it ends at once: to free what is on a card that failed may take
for ever.

It leaves without the destructors of native libraries. They may have threads of their own that are never joined: those
of ONNX Runtime's telemetry abort the process, or hold it up until a name server answers. What is there to be freed, the
system frees.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

from msgspec import msgpack

from conure import log as logs
from conure.engine.backends.device import error_summary, is_device_failure
from conure.engine.ipc.connections import EngineConnections
from conure.engine.ipc.frames import frame
from conure.engine.ipc.wire import DEVICE_FAILED_EXIT, Broken, Starting
from conure.engine.plan import Plan
from conure.engine.startup import start_engine
from conure.errors import ConureError
from conure.gc_freeze import freeze_heap
from conure.json_stderr import redirect_stderr
from conure.parent_death import notice_parent_end

__all__ = ["work"]

log = logging.getLogger(__name__)


def work(
    plan: Plan,
    end: socket.socket,
    ring: str,
    logged: tuple[logs.Detail, bool],
    begun: float,
    listener: socket.socket | None = None,
) -> None:
    """Runs until the other end of the socket is closed. Who connects to `listener` may ask, too."""
    notice_parent_end()
    for number in (signal.SIGINT, signal.SIGTERM):  # they may come to all of a group: the server drains first
        signal.signal(number, signal.SIG_IGN)
    detail, as_json = logged
    logs.configure(detail, as_json=as_json)
    if as_json:
        redirect_stderr()
    connections = EngineConnections()

    def begin(step: str) -> None:
        with contextlib.suppress(OSError):  # it was told to stop meanwhile
            end.sendall(frame(msgpack.encode([Starting(step)])))

    try:
        engine, cards = start_engine(plan, connections.deliver, begin)
    except ConureError as error:
        broken = Broken(type(error).__name__, error.message, error.hint)
        with contextlib.suppress(OSError):  # it was told to stop meanwhile
            end.sendall(frame(msgpack.encode([broken])))
        _leave(0)
    except Exception as error:
        if not is_device_failure(error):
            raise
        log.error("the device failed: %s", error_summary(error))
        _leave(DEVICE_FAILED_EXIT)
    connections.serve(engine, cards, begun, (end, ring), listener)
    freeze_heap()
    try:
        engine.run()
    except Exception as error:
        if not is_device_failure(error):
            raise
        _leave(DEVICE_FAILED_EXIT)
    finally:
        connections.flush()
    atexit._run_exitfuncs()
    _leave(0)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
