"""The engine's own process: a thread reads requests, the main one runs the loop.

It ends when its socket does, so it never outlives whoever started it. Where its device fails it ends at once: to free
what is on a card that failed may take for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

from msgspec import msgpack

from conure import log as logs
from conure.engine.device import device_failed, told
from conure.engine.frames import frame, receive_frame
from conure.engine.loop import Engine
from conure.engine.messages import Answer, Note
from conure.engine.plan import Plan
from conure.engine.ring import SampleRing
from conure.engine.startup import start_engine
from conure.engine.wire import DEVICE_FAILED_EXIT, Broken, FromEngine, Ready, RequestReader
from conure.errors import ConureError
from conure.garbage import keep_what_is_there

__all__ = ["work"]

log = logging.getLogger(__name__)


def work(plan: Plan, end: socket.socket, ring: str, logged: tuple[logs.Detail, bool], begun: float) -> None:
    """Runs until the other end of the socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may come to all of a group: the server drains first
        signal.signal(number, signal.SIG_IGN)
    detail, as_json = logged
    logs.configure(detail, as_json=as_json)
    encoder = msgpack.Encoder()

    def send(messages: list[FromEngine]) -> None:
        end.sendall(frame(encoder.encode(messages)))

    def deliver(answers: list[Answer | Note]) -> None:
        try:
            send([*answers])
        except OSError:
            engine.stop()

    try:
        engine, cards = start_engine(plan, deliver)
    except ConureError as error:
        send([Broken(type(error).__name__, error.message, error.hint)])
        return
    except Exception as error:
        if not device_failed(error):
            raise
        log.error("the device failed: %s", told(error))
        _leave()
    send([Ready(tuple(cards), time.time() - begun)])
    threading.Thread(target=_read, args=(end, SampleRing.attach(ring), engine), daemon=True).start()
    keep_what_is_there()
    try:
        engine.run()
    except Exception as error:
        if not device_failed(error):
            raise
        _leave()


def _leave() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(DEVICE_FAILED_EXIT)


def _read(end: socket.socket, ring: SampleRing, engine: Engine) -> None:
    reader = RequestReader(ring)
    while (payload := receive_frame(end)) is not None:
        for request in reader.decode(payload):
            engine.ask(request)
    ring.close()
    engine.stop()
    ring.close()
