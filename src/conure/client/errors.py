"""Exceptions of the client.

ClientError
├── CannotConnect    no answer at that URL, or not a Conure server
├── ConnectionLost   the connection broke and the stream could not be resumed
├── ServerError      the server refused
│   ├── ServerBusy       it is at capacity, or the key has reached a limit
│   └── StreamFailed     it ended an open stream with an error
├── BadMessage       the server sent an invalid message
├── BadInput         a URL or audio that cannot be sent
├── StreamClosed     the stream was closed by this side
└── ReaderTooSlow    events were not read in time
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "BadMessage",
    "CannotConnect",
    "ClientError",
    "ConnectionLost",
    "ReaderTooSlow",
    "ServerBusy",
    "ServerError",
    "StreamClosed",
    "StreamFailed",
]


class ClientError(Exception):
    """Base of all exceptions of the client, with an optional hint."""

    code = "client_error"
    retry_after: float | None = None
    """Seconds after which to retry, given by the server."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CannotConnect(ClientError, ConnectionError):
    """No answer, or not from a Conure server."""

    code = "cannot_connect"


class ConnectionLost(ClientError, ConnectionError):
    """The connection broke and the stream could not be resumed: audio sent since may be lost."""

    code = "connection_lost"


class ServerError(ClientError):
    """The server refused; `code`, `hint` and `retry_after` come from the server."""

    def __init__(
        self, message: str, *, code: str = "error", hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.retry_after = retry_after


class ServerBusy(ServerError):
    """The server is at capacity, or the key has reached a limit; see `retry_after`."""


class StreamFailed(ServerError):
    """The server ended an open stream with an error."""


class BadMessage(ClientError, ValueError):
    """The server sent an invalid message."""

    code = "bad_message"


class BadInput(ClientError, ValueError):
    """A URL or audio that cannot be sent."""

    code = "bad_input"


class StreamClosed(ClientError):
    """The stream was closed or its context exited; it accepts no more audio."""

    code = "stream_closed"


class ReaderTooSlow(ClientError):
    """The queue of unread events is full; the stream was cancelled."""

    code = "reader_too_slow"
