"""Shared by all calls: authentication, parsing, idle timeout and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from conure.background import report_failure
from conure.errors import BadRequest, ConureError
from conure.protocols.error_codes import ERROR_CODES, error_code_for, message_with_hint, retry_after_for
from conure.protocols.http.connection_limits import IDLE_SECONDS
from conure.protocols.http.credentials import read_credential
from conure.protocols.internal_errors import CONNECTION
from conure.protocols.riva.peers import Peers
from conure.protocols.services import Services
from conure.safe_text import metadata_text, status_text
from conure.service.access import Caller
from conure.service.events import Failed

__all__ = ["Call", "Context", "with_errors", "response_metadata", "parse_request", "abort_with_error"]

Context = grpc.aio.ServicerContext[bytes, Message]
Call = Callable[[AsyncIterator[bytes], Context], Awaitable[Message | None]]
Handler = Callable[[AsyncIterator[bytes], Context, Caller], Awaitable[Message | None]]
Request = TypeVar("Request", bound=Message)


def with_errors(services: Services, peers: Peers, handler: Handler) -> Call:
    """Wraps a handler: authenticates before the first message is read and maps errors to gRPC statuses."""

    async def call(requests: AsyncIterator[bytes], context: Context) -> Message | None:
        try:
            headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
            caller = services.access.identify(read_credential(headers))
            with peers.call(context.peer()):
                return await handler(_with_idle_timeout(requests), context, caller)
        except ConureError as error:
            await abort_with_error(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if context.cancelled():
                raise  # the client disconnected: not an error of the server
            report_failure(CONNECTION, error)
            await context.abort(grpc.StatusCode[ERROR_CODES["error"].grpc], "internal server error; see the server log")

    return call


class CallIdle(BadRequest):
    """The client sent no message in time."""

    code = "idle"


async def _with_idle_timeout(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Raises CallIdle if a message does not arrive in time. A recording is a single, possibly slow message."""
    messages = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise CallIdle(f"no message for {IDLE_SECONDS:g} s", "call again") from None
        yield message


async def abort_with_error(context: Context, error: ConureError | Failed) -> NoReturn:
    retry_after = retry_after_for(error)
    trailing = () if retry_after is None else (("retry-after", f"{max(retry_after, 1):.0f}"),)
    await context.abort(grpc.StatusCode[error_code_for(error).grpc], status_text(message_with_hint(error)), trailing)


def parse_request(type_: type[Request], data: bytes) -> Request:
    """Raises BadRequest."""
    try:
        return type_.FromString(data)
    except DecodeError:
        raise BadRequest(f"the message is not a valid {type_.__name__}", "use package nvidia.riva.asr") from None


def response_metadata(**notes: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Returns the non-empty notes as metadata."""
    values = {name: metadata_text(", ".join(texts)) for name, texts in notes.items()}
    return tuple((f"conure-{name}", value) for name, value in values.items() if value)
