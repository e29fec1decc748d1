"""Uploads a recording and parses its transcript."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import httpx2
from msgspec import MsgspecError, Struct, field, json

from conure.client.connection import Address, error_from_http
from conure.client.errors import BadInput, BadMessage, CannotConnect, ClientError
from conure.client.protocol import Word

__all__ = ["Segment", "Transcript", "post_recording", "printable_name"]

PIECE = 1 << 20


class Segment(Struct, kw_only=True):
    text: str
    start: float | None = None
    end: float | None = None
    words: list[Word] = field(default_factory=list)


class Transcript(Struct, kw_only=True):
    text: str
    duration: float
    """Seconds."""
    language: str | None = None
    model: str | None = None
    segments: list[Segment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Parts of the recording that could not be read."""


async def post_recording(address: Address, source: str | Path | bytes, params: dict[str, str]) -> Transcript:
    """Uploads a file in pieces and returns the transcript.

    Raises BadInput, CannotConnect, ServerError (ServerBusy) or BadMessage.
    """
    url = address.url_for("/v1/transcribe", socket=False)
    timeout = httpx2.Timeout(None, connect=address.open_timeout)  # transcribing a long recording takes long
    try:
        with await asyncio.to_thread(_open, source) as file:
            async with httpx2.AsyncClient(headers=dict(address.headers), timeout=timeout) as http:
                response = await http.post(url, params=params, content=_pieces(file))
    except httpx2.TransportError as error:
        raise CannotConnect(
            f"{address.url} cannot be reached: {error or type(error).__name__}", "is `conure serve` running there?"
        ) from error
    return _transcript(response.status_code, response.content, address.url)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


def _open(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return BytesIO(source)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise BadInput(f"{printable_name(str(source))} cannot be read: {error.strerror}") from error
    except ValueError as error:  # NUL in the path
        raise BadInput(f"{source!r} cannot be read: {error}") from error


def printable_name(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become escapes like \\xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _transcript(status: int, body: bytes, url: str) -> Transcript:
    if status != 200:
        error: ClientError = error_from_http(status, body, url)
        raise error
    try:
        return json.decode(body, type=Transcript)
    except (MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage(f"{url} answered {body[:60]!r}: {error}", "is it a Conure server?") from error
