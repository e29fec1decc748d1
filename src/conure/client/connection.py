"""Opens connections: the URLs of a server, the first words on a WebSocket, patience after a break."""

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

BIGGEST_MESSAGE = 16 << 20
"""Bytes. A final of an hour with all its words has 2 MB."""
FAREWELL_SECONDS = 1.0
BUSY = ("busy", "too_many")
"""What goes well later."""
FIRST_DELAY, MAX_DELAY = 0.1, 5.0
"""Seconds between attempts to come back: doubled each time, and any part of that, so that not all clients of a server
that starts again come at once."""


@dataclass(frozen=True)
class Address:
    """A server, and what every request to it carries."""

    url: str
    """ws, wss, http or https; a path in it is one that a proxy adds."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    open_timeout: float = 10.0
    keepalive: float = 10.0
    """Seconds between pings, and until one that is not answered breaks the connection."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise BadInput(f"{self.url!r} is not the URL of a server", "write it as ws://localhost:8000")

    def url_for(self, path: str, *, socket: bool) -> str:
        """The URL of a path on the server."""
        parts = urlsplit(self.url)
        scheme = ("ws" if socket else "http") + ("s" if parts.scheme in ("wss", "https") else "")
        return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}"


async def open_socket(
    address: Address, wire: Codec, first: tuple[Hello, Config] | tuple[Resume]
) -> tuple[ClientConnection, Ready]:
    """Connect, say the first messages, and wait until the server is ready.

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
                close_timeout=FAREWELL_SECONDS,
                max_size=BIGGEST_MESSAGE,
            )
            with contextlib.suppress(ConnectionClosed):  # who is refused at once is told why
                for message in first:
                    await socket.send(wire.render(message))
            return socket, _ready(wire.parse(await socket.recv()))
    except BaseException as error:
        if socket is not None:
            socket.transport.abort()
            await socket.wait_closed()
        translated = _translated(error, address)
        if translated is None:
            raise
        raise translated from error


def _ready(message: object) -> Ready:
    if isinstance(message, Ready):
        return message
    if isinstance(message, Error | Failed):
        raise error_from_message(message)
    raise BadMessage(f"the server began with {message!r} instead of `ready`")


def error_from_message(message: Error | Failed) -> ServerError:
    """What the server said, as an error."""
    kind = StreamFailed if isinstance(message, Failed) else ServerBusy if message.code in BUSY else ServerError
    return kind(message.message, code=message.code, hint=message.hint, retry_after=message.retry_after)


def _translated(error: BaseException, address: Address) -> ClientError | None:
    hint = "does `conure serve` run there?"
    if isinstance(error, InvalidStatus):
        return error_from_http(error.response.status_code, bytes(error.response.body or b""), address.url)
    if isinstance(error, TimeoutError):
        return CannotConnect(f"{address.url} did not answer within {address.open_timeout:g} s", hint)
    if isinstance(error, ConnectionClosed):
        return CannotConnect(f"{address.url} hung up before it was ready: {error}", hint)
    if isinstance(error, OSError | WebSocketException):
        return CannotConnect(f"{address.url} cannot be reached: {error}", hint)
    return None


class _Refusal(msgspec.Struct):
    error: Error


def error_from_http(status: int, body: bytes, url: str) -> ClientError:
    """An answer that is none, as an error: what its body says, else what its status means."""
    try:
        return error_from_message(msgspec.json.decode(body, type=_Refusal).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if status >= 500:
            return CannotConnect(f"{url} answered HTTP {status}", "the server, or a proxy before it, is in trouble")
        return ServerError(f"{url} answered HTTP {status}", code=f"http_{status}", hint="is it a Conure server?")


class ReconnectBackoff:
    """How long, and how often, to try to come back after a break."""

    def __init__(self, seconds: float, now: float) -> None:
        self.deadline = now + seconds
        self.attempts = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        longest = min(MAX_DELAY, FIRST_DELAY * 2 ** min(self.attempts, 16))
        self.attempts += 1
        return random.uniform(0, longest)
