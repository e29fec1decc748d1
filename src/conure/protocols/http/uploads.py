"""Recordings on their way in: the body of a request, or a part of a form, and whether its sender still waits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from conure import metrics
from conure.background import start_task
from conure.errors import AudioTooLong, BadOption, Busy, StorageFull
from conure.protocols.http.media_type import MULTIPART_FORM, media_type

__all__ = ["Uploads", "disk_errors_as_storage_full", "cancel_on_disconnect"]

log = logging.getLogger(__name__)

IN_MEMORY = 2**24
"""Bytes of a recording from which on it is kept on disk while it is transcribed."""
MOST_FIELD_BYTES = 2**25
"""Of a form's field that is no file: short recordings of known speakers may be in one."""
DISK_ERRORS = frozenset(
    (*(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS), *(errno.ENOENT, errno.EACCES), errno.EMFILE)
)
"""What a write to a temporary file says where there is no room for it, or no folder that it may be in."""
FULL_RETRY = 30.0
"""Seconds after which a disk may have room again: recordings leave it when they are transcribed."""

Result = TypeVar("Result")


class Uploads:
    """Takes recordings in. So many at once may be here, from their first byte until they are transcribed: what does
    not fit in memory is on disk meanwhile."""

    def __init__(self, most_bytes: int, most_at_once: int) -> None:
        """Bytes of one recording, and how many there may be."""
        self.max_bytes = most_bytes
        self._most_at_once = most_at_once
        self._here = 0

    @contextlib.contextmanager
    def reserve(self) -> Iterator[None]:
        """For one recording. Raises Busy where there is none left."""
        if self._here >= self._most_at_once:
            metrics.REFUSED.labels("uploads").inc()
            raise Busy(f"{self._here} recordings are here already", "try again in a while, or raise max_uploads")
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    @contextlib.asynccontextmanager
    async def receive_body(self, request: Request) -> AsyncIterator[BinaryIO]:
        """The body as a file. Raises Busy, StorageFull, AudioTooLong, or ClientDisconnect where it ends too early."""
        with self.reserve(), _closed(tempfile.SpooledTemporaryFile(IN_MEMORY)) as file:
            with disk_errors_as_storage_full():
                async for part in _bounded(request, self.max_bytes):
                    file.write(part)
                file.seek(0)
            yield file

    @contextlib.asynccontextmanager
    async def receive_form(self, request: Request) -> AsyncIterator[FormData]:
        """The fields of a form and its files, which are gone afterwards. Raises also BadOption for what is no form."""
        if media_type(request.headers) != MULTIPART_FORM:
            kind = request.headers.get("content-type", "")
            raise BadOption(f"the content type is {kind!r}", "send multipart/form-data with the recording as `file`")
        with self.reserve():
            form = await self._parsed(request)
            try:
                yield form
            finally:
                await form.close()

    async def _parsed(self, request: Request) -> FormData:
        parser = _FormParser(
            request.headers,
            _bounded(request, self.max_bytes),
            max_files=8,
            max_fields=1000,
            max_part_size=MOST_FIELD_BYTES,
        )
        try:
            with disk_errors_as_storage_full():
                form = await parser.parse()
        except (MultiPartException, MultipartParseError, UnicodeError) as error:
            raise BadOption(f"the form cannot be read: {error}", "send multipart/form-data") from None
        if not parser.is_whole:
            await form.close()
            raise BadOption("the form ends before its last boundary", "it was cut off on the way: send all of it")
        return form


class _FormParser(MultiPartParser):
    """Knows whether all of the form came: the library takes the parts that are whole for the form."""

    is_whole = False

    def on_end(self) -> None:
        self.is_whole = True


@contextlib.contextmanager
def disk_errors_as_storage_full() -> Iterator[None]:
    """While a recording is written. Raises StorageFull where that fails."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        metrics.REFUSED.labels(StorageFull.code).inc()
        log.error("a recording cannot be kept in %s: %s", _folder(), error.strerror)
        raise StorageFull(
            "the server has no room to keep the recording", "try again later, or send a shorter one", FULL_RETRY
        ) from None


@contextlib.contextmanager
def _closed(file: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[BinaryIO]:
    try:
        yield cast(BinaryIO, file)
    finally:
        with contextlib.suppress(OSError):  # what could not be written is tried once more
            file.close()


def _folder() -> str:
    """Where they are kept. Looking for one fails where no disk has room."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "any folder for temporary files"


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Gives the work up where the client hangs up, and raises ClientDisconnect."""
    working, leaving = (
        start_task(work, "answering a request"),
        start_task(_gone(request), "waiting for a client to leave"),
    )
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
