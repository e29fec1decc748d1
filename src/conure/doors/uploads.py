"""Recordings on their way in: the body of a request, or a part of a form, and whether its sender still waits."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, BinaryIO, TypeVar, cast

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from conure.doors.media_type import FORM, media_type
from conure.errors import AudioTooLong, BadOption

__all__ = ["form_of", "received", "while_there"]

IN_MEMORY = 2**24
"""Bytes of a recording from which on it is kept on disk while it is transcribed."""
MOST_FIELD_BYTES = 2**25
"""Of a form's field that is no file: short recordings of known speakers may be in one."""

Result = TypeVar("Result")


@contextlib.asynccontextmanager
async def received(request: Request, most_bytes: int) -> AsyncIterator[BinaryIO]:
    """The body as a file. Raises AudioTooLong, or ClientDisconnect where the body ends too early."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        async for part in _bounded(request, most_bytes):
            file.write(part)
        file.seek(0)
        yield cast(BinaryIO, file)


@contextlib.asynccontextmanager
async def form_of(request: Request, most_bytes: int) -> AsyncIterator[FormData]:
    """The fields of a form and its files, which are gone afterwards. Raises also BadOption for what is no form."""
    if media_type(request.headers) != FORM:
        kind = request.headers.get("content-type", "")
        raise BadOption(f"the content type is {kind!r}", "send multipart/form-data with the recording as `file`")
    parser = MultiPartParser(
        request.headers, _bounded(request, most_bytes), max_files=8, max_fields=1000, max_part_size=MOST_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except (MultiPartException, MultipartParseError, UnicodeError) as error:
        raise BadOption(f"the form cannot be read: {error}", "send multipart/form-data") from None
    try:
        yield form
    finally:
        await form.close()


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Gives the work up where the client hangs up, and raises ClientDisconnect."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise AudioTooLong(f"the recording has more than {most_bytes} bytes", "cut it, or raise max_upload_mb")
        yield part


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
