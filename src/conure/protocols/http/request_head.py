"""The head of a request: what h11 makes of it, within limits that hold however the bytes were cut."""

from __future__ import annotations

import re
from typing import Any

import h11

from conure.protocols.error_codes import http_status_for
from conure.protocols.http.http_errors import NOT_HTTP, HttpFault, head_too_long, target_too_long, unsupported_version

__all__ = ["LONGEST_HEAD", "LONGEST_TARGET", "MOST_HEADERS", "Head"]

LONGEST_TARGET, LONGEST_HEAD = 2**16 + 2**12, 2**17
"""Bytes. A query may have 64 KiB: lists of words that a program expects are in it; so may cookies beside it."""
MOST_HEADERS = 500


CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""In a header's value no protocol allows it, though h11 does."""
TOO_LONG = 431
"""h11's word for a first line that does not end, and for headers that do not."""


class Head(h11.Connection):
    """Keeps what was wrong with what came."""

    def __init__(self, role: Any) -> None:
        super().__init__(role, LONGEST_HEAD)
        self.fault: HttpFault = NOT_HTTP

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == TOO_LONG:
                is_first_line = b"\n" not in self.trailing_data[0]
                self.fault = target_too_long(LONGEST_TARGET) if is_first_line else TOO_LONG_HEAD
            raise
        if isinstance(event, h11.Request) and (fault := _fault_of(event)):
            self.fault = fault
            raise h11.RemoteProtocolError(fault.message, error_status_hint=http_status_for(fault))
        return event


TOO_LONG_HEAD = head_too_long(f"{LONGEST_HEAD} bytes")


def _fault_of(head: h11.Request) -> HttpFault | None:
    if not head.http_version.startswith(b"1."):
        return unsupported_version(head.http_version.decode("ascii"))
    if len(head.target) > LONGEST_TARGET:
        return target_too_long(LONGEST_TARGET)
    if len(head.headers) > MOST_HEADERS:
        return head_too_long(f"{MOST_HEADERS} headers")
    if any(CONTROL.search(value) for _, value in head.headers):
        return NOT_HTTP
    size = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return TOO_LONG_HEAD if size > LONGEST_HEAD else None
