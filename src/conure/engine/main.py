"""The engine process: threads read requests and write events, the main thread runs the engine's loop.

It exits when the parent's socket is closed, so it never outlives the parent, even when a step does not return. When its
device fails it exits at once: freeing the memory of a failed GPU may block for ever.

It exits without running the destructors of native libraries. Some have threads that are never joined: those of ONNX
Runtime's telemetry abort the process, or block it until a name server answers. The system frees the memory.
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
from conure.engine.ipc.frames import encode_frame
from conure.engine.ipc.wire import DEVICE_FAILED_EXIT, StartFailed, Starting
from conure.engine.plan import Plan
from conure.engine.startup import start_engine
from conure.errors import ConureError
from conure.gc_freeze import freeze_heap
from conure.json_stderr import redirect_stderr
from conure.parent_death import notice_parent_end

__all__ = ["run_engine_process"]

log = logging.getLogger(__name__)


def run_engine_process(
    plan: Plan,
    parent: socket.socket,
    ring: str,
    log_settings: tuple[logs.Detail, bool],
    started_at: float,
    listener: socket.socket | None = None,
) -> None:
    """Runs until the parent closes the socket. Other processes may connect to `listener`."""
    notice_parent_end()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group: the server drains first
        signal.signal(number, signal.SIG_IGN)
    detail, as_json = log_settings
    logs.configure(detail, as_json=as_json)
    if as_json:
        redirect_stderr()
    connections = EngineConnections()

    def report_step(step: str) -> None:
        _send(parent, Starting(step))

    try:
        engine, models = start_engine(plan, connections.deliver, report_step)
    except ConureError as error:
        _send(parent, StartFailed(type(error).__name__, error.message, error.hint))
        _exit(0)
    except Exception as error:
        if not is_device_failure(error):
            raise
        log.error("the device failed: %s", error_summary(error))
        _exit(DEVICE_FAILED_EXIT)
    connections.serve(engine, models, started_at, (parent, ring), listener)
    freeze_heap()
    try:
        engine.run()
    except Exception as error:
        if not is_device_failure(error):
            raise
        _exit(DEVICE_FAILED_EXIT)
    finally:
        connections.flush()
    atexit._run_exitfuncs()
    _exit(0)


def _send(parent: socket.socket, message: Starting | StartFailed) -> None:
    with contextlib.suppress(OSError):  # the parent stops the engine during its start
        parent.sendall(encode_frame(msgpack.encode([message])))


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
