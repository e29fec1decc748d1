"""The head of a request: h11's parser with limits that do not depend on how the bytes are split into packets."""

from __future__ import annotations

import re
from typing import Any

import h11

from conure.protocols.error_codes import http_status_for
from conure.protocols.http.http_errors import NOT_HTTP, HttpFault, head_too_long, target_too_long, unsupported_version

__all__ = ["MAX_HEAD_BYTES", "MAX_TARGET_BYTES", "MAX_HEADERS", "Head"]

MAX_TARGET_BYTES, MAX_HEAD_BYTES = 2**16 + 2**12, 2**17
"""A query may have 64 KiB, as it contains lists of expected words; the cookies may have as much."""
MAX_HEADERS = 500


CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Forbidden in header values, but accepted by h11."""
TOO_LONG = 431
"""h11's status for an endless request line and for endless headers."""


class Head(h11.Connection):
    """Parser that keeps the error of an invalid request in `fault`."""

    def __init__(self, role: Any) -> None:
        super().__init__(role, MAX_HEAD_BYTES)
        self.fault: HttpFault = NOT_HTTP

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == TOO_LONG:
                is_first_line = b"\n" not in self.trailing_data[0]
                self.fault = target_too_long(MAX_TARGET_BYTES) if is_first_line else HEAD_TOO_LONG
            raise
        if isinstance(event, h11.Request) and (fault := _fault_of(event)):
            self.fault = fault
            raise h11.RemoteProtocolError(fault.message, error_status_hint=http_status_for(fault))
        return event


HEAD_TOO_LONG = head_too_long(f"{MAX_HEAD_BYTES} bytes")


def _fault_of(head: h11.Request) -> HttpFault | None:
    if not head.http_version.startswith(b"1."):
        return unsupported_version(head.http_version.decode("ascii"))
    if len(head.target) > MAX_TARGET_BYTES:
        return target_too_long(MAX_TARGET_BYTES)
    if len(head.headers) > MAX_HEADERS:
        return head_too_long(f"{MAX_HEADERS} headers")
    if any(CONTROL.search(value) for _, value in head.headers):
        return NOT_HTTP
    size = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return HEAD_TOO_LONG if size > MAX_HEAD_BYTES else None
