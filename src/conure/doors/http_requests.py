"""uvicorn's HTTP protocol, where a client breaks a request off with bytes that are none.

uvicorn answers 400 and leaves the application at work, whose own answer then fails with a traceback for every stranger
who sends such bytes. Here the application is told that its client has gone, and nothing is said into an answer that
has begun.
"""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HttpRequests"]


class HttpRequests(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun, or may have no text
            self.transport.close()
