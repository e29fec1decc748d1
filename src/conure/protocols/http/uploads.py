"""Receives recordings, as the body of a request or a part of a form, and detects clients that disconnect."""

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
"""Bytes of a recording kept in memory; a larger one is on disk while it is transcribed."""
MAX_FIELD_BYTES = 2**25
"""Limit of a form's fields other than files, which may contain short recordings of known speakers."""
DISK_ERRORS = frozenset(
    (*(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS), *(errno.ENOENT, errno.EACCES), errno.EMFILE)
)
"""Errors of writing a temporary file when the disk is full or has no writable folder."""
FULL_RETRY = 30.0
"""Seconds after which a disk may have space again: recordings are deleted when they are transcribed."""

Result = TypeVar("Result")


class Uploads:
    """Receives recordings and limits how many exist at once, from their first byte until they are transcribed. Larger
    ones are on disk meanwhile."""

    def __init__(self, max_bytes: int, max_concurrent: int) -> None:
        """`max_bytes`: of one recording."""
        self.max_bytes = max_bytes
        self._max_concurrent = max_concurrent
        self._active = 0

    @contextlib.contextmanager
    def reserve(self) -> Iterator[None]:
        """Counts one recording inside the `with` block. Raises Busy if the limit is reached."""
        if self._active >= self._max_concurrent:
            metrics.REFUSED.labels("uploads").inc()
            raise Busy(f"{self._active} recordings are already being processed", "retry later, or raise max_uploads")
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    @contextlib.asynccontextmanager
    async def receive_body(self, request: Request) -> AsyncIterator[BinaryIO]:
        """The body as a file. Raises Busy, StorageFull, AudioTooLong, or ClientDisconnect if the body is incomplete."""
        with self.reserve(), _closed(tempfile.SpooledTemporaryFile(IN_MEMORY)) as file:
            with disk_errors_as_storage_full():
                async for part in _limited_body(request, self.max_bytes):
                    file.write(part)
                file.seek(0)
            yield file

    @contextlib.asynccontextmanager
    async def receive_form(self, request: Request) -> AsyncIterator[FormData]:
        """Fields and files of a form; the files are deleted afterwards. Also raises BadOption for an invalid form."""
        if media_type(request.headers) != MULTIPART_FORM:
            found = request.headers.get("content-type", "")
            raise BadOption(f"the content type is {found!r}", "send multipart/form-data with the recording as `file`")
        with self.reserve():
            form = await self._parse(request)
            try:
                yield form
            finally:
                await form.close()

    async def _parse(self, request: Request) -> FormData:
        parser = _FormParser(
            request.headers,
            _limited_body(request, self.max_bytes),
            max_files=8,
            max_fields=1000,
            max_part_size=MAX_FIELD_BYTES,
        )
        try:
            with disk_errors_as_storage_full():
                form = await parser.parse()
        except (MultiPartException, MultipartParseError, UnicodeError) as error:
            raise BadOption(f"the form cannot be read: {error}", "send multipart/form-data") from None
        if not parser.is_complete:
            await form.close()
            raise BadOption("the form ends before its last boundary", "send the complete form")
        return form


class _FormParser(MultiPartParser):
    """Records whether the form is complete: the library accepts a truncated form with the parts before its end."""

    is_complete = False

    def on_end(self) -> None:
        self.is_complete = True


@contextlib.contextmanager
def disk_errors_as_storage_full() -> Iterator[None]:
    """Converts errors of writing a recording. Raises StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        metrics.REFUSED.labels(StorageFull.code).inc()
        log.error("cannot write a recording to %s: %s", _temporary_folder(), error.strerror)
        raise StorageFull(
            "the server has no disk space for the recording", "retry later, or send a shorter one", FULL_RETRY
        ) from None


@contextlib.contextmanager
def _closed(file: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[BinaryIO]:
    try:
        yield cast(BinaryIO, file)
    finally:
        with contextlib.suppress(OSError):  # closing flushes, which may fail again
            file.close()


def _temporary_folder() -> str:
    """For the log. `gettempdir` fails if all disks are full."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "any folder for temporary files"


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Cancels the work and raises ClientDisconnect when the client disconnects."""
    working = start_task(work, "answering a request")
    disconnect = start_task(_wait_for_disconnect(request), "waiting for a client to disconnect")
    try:
        await asyncio.wait((working, disconnect), return_when=asyncio.FIRST_COMPLETED)
    finally:
        disconnect.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def _limited_body(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise AudioTooLong(f"the recording has more than {max_bytes} bytes", "split it, or raise max_upload_mb")
        yield part


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
