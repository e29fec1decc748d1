"""uvicorn's HTTP protocol, where a client breaks a request off with bytes that are none.

uvicorn answers 400 and leaves the application at work, whose own answer then fails with a traceback for every stranger
who sends such bytes. Here the application is told that its client has gone, and nothing is said into an answer that
has begun. And a client that has sent all of its request may shut its side of the connection: it is answered.
"""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["HttpRequests"]

CUT_OFF = "The connection ended before the request did."
PROBES, PROBE_SECONDS = 2, 1.0
"""Interim answers to a client that has shut its side, and what is between them: one that is gone refuses the first, and
the second is not sent any more. An answer that comes soon needs none."""


class HttpRequests(H11Protocol):
    def eof_received(self) -> bool:  # type: ignore[override]  # whether the connection stays open for the answer
        cycle = self.cycle
        is_at_work = cycle is not None and not cycle.response_complete
        if is_at_work and not cycle.more_body:
            cycle.keep_alive = False
            if self.scheme == "https":  # TLS knows no connections that are half open
                return False
            if cycle.scope["http_version"] == "1.1":
                self.loop.call_later(PROBE_SECONDS, self._probe, cycle, PROBES)
            return True
        if is_at_work or self.conn.trailing_data[0]:
            self.send_400_response(CUT_OFF)
        return False

    def _probe(self, cycle: RequestResponseCycle, left: int) -> None:
        """Whether anybody is there: one that has gone is not worked for."""
        if cycle.response_started or self.transport.is_closing():
            return
        self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])))
        if left > 1:
            self.loop.call_later(PROBE_SECONDS, self._probe, cycle, left - 1)

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun, or may have no text
            self.transport.close()
