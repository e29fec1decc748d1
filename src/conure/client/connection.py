"""Opens connections: URLs of a server, the first messages on a WebSocket, back-off of reconnects."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from conure.client.codec import Codec
from conure.client.errors import (
    BadInput,
    BadMessage,
    CannotConnect,
    ClientError,
    ServerBusy,
    ServerError,
    StreamFailed,
)
from conure.client.protocol import Config, Error, Failed, Hello, Ready, Resume

__all__ = ["Address", "ReconnectBackoff", "open_socket", "error_from_message", "error_from_http"]

MAX_MESSAGE_BYTES = 16 << 20
"""A final of one hour with all its words has 2 MB."""
CLOSE_TIMEOUT_SECONDS = 1.0
BUSY_CODES = ("busy", "too_many")
"""Error codes after which a retry may succeed."""
FIRST_DELAY, MAX_DELAY = 0.1, 5.0
"""Seconds between reconnect attempts: doubled each time, with full jitter, so that the clients of a restarted server do
not all connect at once."""


@dataclass(frozen=True)
class Address:
    """URL of a server, and the headers and timeouts of every request to it."""

    url: str
    """ws, wss, http or https. A path in it is a prefix that a proxy adds."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    open_timeout: float = 10.0
    keepalive: float = 10.0
    """Seconds between pings, and the timeout of their pongs."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise BadInput(f"{self.url!r} is not the URL of a server", "use the form ws://localhost:8000")

    def url_for(self, path: str, *, socket: bool) -> str:
        """URL of a path on the server."""
        parts = urlsplit(self.url)
        scheme = ("ws" if socket else "http") + ("s" if parts.scheme in ("wss", "https") else "")
        return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}"


async def open_socket(
    address: Address, wire: Codec, first: tuple[Hello, Config] | tuple[Resume]
) -> tuple[ClientConnection, Ready]:
    """Connects, sends the first messages and waits for `ready`.

    Raises CannotConnect, ServerError (ServerBusy) or BadMessage.
    """
    url = address.url_for("/v1/stream", socket=True) + ("?format=msgpack" if wire.wire_format == "msgpack" else "")
    socket: ClientConnection | None = None
    try:
        async with asyncio.timeout(address.open_timeout):
            socket = await connect(
                url,
                compression=None,
                additional_headers=address.headers,
                open_timeout=None,
                ping_interval=address.keepalive,
                ping_timeout=address.keepalive,
                close_timeout=CLOSE_TIMEOUT_SECONDS,
                max_size=MAX_MESSAGE_BYTES,
            )
            with contextlib.suppress(ConnectionClosed):  # a refused client still reads the reason below
                for message in first:
                    await socket.send(wire.render(message))
            return socket, _ready(wire.parse(await socket.recv()))
    except BaseException as error:
        if socket is not None:
            socket.transport.abort()
            await socket.wait_closed()
        client_error = _client_error(error, address)
        if client_error is None:
            raise
        raise client_error from error


def _ready(message: object) -> Ready:
    if isinstance(message, Ready):
        return message
    if isinstance(message, Error | Failed):
        raise error_from_message(message)
    raise BadMessage(f"the server began with {message!r} instead of `ready`")


def error_from_message(message: Error | Failed) -> ServerError:
    """The exception for an error message of the server."""
    kind = StreamFailed if isinstance(message, Failed) else ServerBusy if message.code in BUSY_CODES else ServerError
    return kind(message.message, code=message.code, hint=message.hint, retry_after=message.retry_after)


def _client_error(error: BaseException, address: Address) -> ClientError | None:
    hint = "is `conure serve` running there?"
    if isinstance(error, InvalidStatus):
        return error_from_http(error.response.status_code, bytes(error.response.body or b""), address.url)
    if isinstance(error, TimeoutError):
        return CannotConnect(f"{address.url} did not answer within {address.open_timeout:g} s", hint)
    if isinstance(error, ConnectionClosed):
        return CannotConnect(f"{address.url} closed the connection before it was ready: {error}", hint)
    if isinstance(error, OSError | WebSocketException):
        return CannotConnect(f"{address.url} cannot be reached: {error}", hint)
    return None


class _Refusal(msgspec.Struct):
    error: Error


def error_from_http(status: int, body: bytes, url: str) -> ClientError:
    """The exception for an unsuccessful HTTP response: from its body, else from its status."""
    try:
        return error_from_message(msgspec.json.decode(body, type=_Refusal).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if status >= 500:
            return CannotConnect(f"{url} answered HTTP {status}", "the server, or a proxy in front of it, has failed")
        return ServerError(f"{url} answered HTTP {status}", code=f"http_{status}", hint="is it a Conure server?")


class ReconnectBackoff:
    """Delays and deadline of the reconnect attempts after a broken connection."""

    def __init__(self, seconds: float, now: float) -> None:
        self.deadline = now + seconds
        self.attempts = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        max_delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(self.attempts, 16))
        self.attempts += 1
        return random.uniform(0, max_delay)
