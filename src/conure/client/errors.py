"""Every mistake that the client knows.

ClientError
├── CannotConnect    nobody answers at that URL, or not a Conure server
├── ConnectionLost   the connection broke and the stream could not be resumed
├── ServerError      the server says no
│   ├── ServerBusy       it has no room now, or the key has all that it may have for now
│   └── StreamFailed     it gave up a stream that it had accepted
├── BadMessage       the server said what is not in the protocol
├── BadInput         a URL or audio that cannot be sent
├── StreamClosed     the stream is over on our side
└── ReaderTooSlow    events came, and nobody read them
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
    """A mistake we know, with a hint where there is one."""

    code = "client_error"
    retry_after: float | None = None
    """Seconds after which it may be tried again, as the server says."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CannotConnect(ClientError, ConnectionError):
    """Nobody answers, or somebody who is no Conure server."""

    code = "cannot_connect"


class ConnectionLost(ClientError, ConnectionError):
    """The connection broke and the stream could not be resumed: what was said since may be lost."""

    code = "connection_lost"


class ServerError(ClientError):
    """The server says no; `code`, `hint` and `retry_after` are its own."""

    def __init__(
        self, message: str, *, code: str = "error", hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.retry_after = retry_after


class ServerBusy(ServerError):
    """The server has no room now, or the key has had all that it may have; see `retry_after`."""


class StreamFailed(ServerError):
    """The server gave up a stream that it had accepted."""


class BadMessage(ClientError, ValueError):
    """The server said what is not in the protocol."""

    code = "bad_message"


class BadInput(ClientError, ValueError):
    """A URL or audio that cannot be sent."""

    code = "bad_input"


class StreamClosed(ClientError):
    """The stream was closed or left, and takes nothing more."""

    code = "stream_closed"


class ReaderTooSlow(ClientError):
    """More events lie unread than are kept; the stream was given up."""

    code = "reader_too_slow"
