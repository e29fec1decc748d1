"""What every call has in common: who calls, what its messages are, and how it ends."""

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

__all__ = ["Call", "Context", "answering", "response_metadata", "parsed", "refuse"]

Context = grpc.aio.ServicerContext[bytes, Message]
Call = Callable[[AsyncIterator[bytes], Context], Awaitable[Message | None]]
Request = TypeVar("Request", bound=Message)


def answering(
    behind: Services, peers: Peers, answer: Callable[[AsyncIterator[bytes], Context, Caller], Awaitable[Message | None]]
) -> Call:
    """A call whose errors are those of the one table. Who may not come in is told before anything is read."""

    async def call(requests: AsyncIterator[bytes], context: Context) -> Message | None:
        try:
            headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
            caller = behind.access.identify(read_credential(headers))
            with peers.call(context.peer()):
                return await answer(_patient(requests), context, caller)
        except ConureError as error:
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if context.cancelled():
                raise  # the connection broke under it, which is no mistake
            report_failure(CONNECTION, error)
            await context.abort(grpc.StatusCode[ERROR_CODES["error"].grpc], "our fault; the server's log has more")

    return call


class Silent(BadRequest):
    """A call over which nothing is sent any more."""

    code = "idle"


async def _patient(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Raises Silent where a message does not come in time. A recording is one message, and may take long to come."""
    messages = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Silent(f"nothing was sent for {IDLE_SECONDS:g} s", "call again") from None
        yield message


async def refuse(context: Context, error: ConureError | Failed) -> NoReturn:
    retry = retry_after_for(error)
    trailing = () if retry is None else (("retry-after", f"{max(retry, 1):.0f}"),)
    await context.abort(grpc.StatusCode[error_code_for(error).grpc], status_text(message_with_hint(error)), trailing)


def parsed(kind: type[Request], data: bytes) -> Request:
    """Raises BadRequest."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise BadRequest(f"the message is no {kind.__name__}", "it is of package nvidia.riva.asr") from None


def response_metadata(**notes: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Metadata; without what there is nothing to say of."""
    told = {name: metadata_text(", ".join(texts)) for name, texts in notes.items()}
    return tuple((f"conure-{name}", text) for name, text in told.items() if text)
