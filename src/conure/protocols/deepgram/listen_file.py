"""Recordings to transcripts: `POST /v1/listen` with the bytes of a file, or with `{"url": ...}` to fetch it from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from conure.audio.containers import is_container
from conure.audio.wav_header import with_wav_header
from conure.errors import BadOption, ConureError
from conure.protocols.deepgram.errors import REQUEST_ID, body, error_response
from conure.protocols.deepgram.file_params import FileParams
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.deepgram.transcripts import answer
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.media_type import JSON, media_type
from conure.protocols.http.uploads import cancel_on_disconnect, disk_errors_as_storage_full
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["listen_file"]

LONGEST_JSON = 2**16
PART = 2**20
HEAD = 16
"""Bytes that tell a container, which some send as if it were samples."""


class Refusal(BaseModel):
    err_code: str
    err_msg: str
    request_id: str


MISTAKES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "What is wrong, and how to mend it."},
    "5XX": {"model": Refusal, "description": "No room for it now, with `Retry-After`; or our fault."},
}
ADDRESS = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "format": "uri"}}}
RECORDING = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a recording of any container, or where it is to be fetched from.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": ADDRESS},
        },
    }
}


def listen_file(behind: Services) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/listen", response_model=None, responses=MISTAKES, openapi_extra=RECORDING)
    async def listen(request: Request) -> Response:
        """Any container of sound or video, or samples as `encoding`, `sample_rate` and `channels` tell."""
        request_id = str(uuid.uuid4())
        try:
            caller = behind.access.identify(read_credential(request.headers, request.query_params))
            wanted = FileParams.of(DeepgramQuery(request.query_params.multi_items()), behind.live.models)
            if wanted.callback:
                await behind.callbacks.check_url(wanted.callback)
            async with contextlib.AsyncExitStack() as stack:
                file = await stack.enter_async_context(behind.uploads.receive_body(request))
                url = _url_in(file) if _is_json(request, file, wanted) else None
                asked = _Asked(behind, file, url, wanted, caller, request_id)
                if wanted.callback:
                    behind.callbacks.schedule(wanted.callback, asked.told_later, stack)
                    said = {"request_id": request_id}
                else:
                    said = await cancel_on_disconnect(request, asked.transcribed())
        except ConureError as error:
            return error_response(error, request_id)
        return JSONResponse(said, headers=_headers(wanted, request_id))

    return router


def _headers(wanted: FileParams, request_id: str) -> dict[str, str]:
    headers = {REQUEST_ID: request_id}
    return headers | {"Conure-Ignored": wanted.ignored_header} if wanted.ignored_header else headers


@dataclass(frozen=True)
class _Asked:
    """One request."""

    behind: Services
    file: BinaryIO
    """What was sent."""
    url: str | None
    """Where the recording is, which then takes its place."""
    wanted: FileParams
    caller: Caller
    request_id: str

    async def transcribed(self) -> dict[str, Any]:
        behind, file, wanted = self.behind, self.file, self.wanted
        if self.url is not None:
            with disk_errors_as_storage_full():
                file.truncate(0)
                await behind.fetcher.fetch(self.url, file, behind.uploads.max_bytes)
                file.seek(0)
        sha256 = await _sha256(file)
        recording = with_wav_header(file, wanted.audio) if wanted.audio and not is_container(_head(file)) else file
        if wanted.multichannel:
            found = await behind.files.transcribe_channels(
                recording, wanted.card, wanted.language, self.caller, wanted.track
            )
        else:
            found = [
                await behind.files.transcribe(recording, wanted.card, wanted.language, self.caller, track=wanted.track)
            ]
        return answer(wanted, found, self.request_id, sha256)

    async def told_later(self) -> bytes:
        """JSON, also of what went wrong."""
        try:
            return msgspec.json.encode(await self.transcribed())
        except ConureError as error:
            return msgspec.json.encode(body(error, self.request_id))


def _is_json(request: Request, file: BinaryIO, wanted: FileParams) -> bool:
    """Told so; or untold, where no container begins like that."""
    if media_type(request.headers) == JSON:
        return True
    return wanted.audio is None and _head(file).lstrip().startswith(b"{")


def _url_in(file: BinaryIO) -> str:
    """The file is at its start again."""
    text = file.read(LONGEST_JSON)
    file.seek(0)
    try:
        return msgspec.json.decode(text, type=_Where).url
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadOption("the body is no JSON with a `url`", 'send {"url": "https://..."}, or the bytes') from None


class _Where(msgspec.Struct):
    url: str


async def _sha256(file: BinaryIO) -> str:
    """Returns once nothing reads the file any more, when it is cancelled, too."""
    hashing = asyncio.get_running_loop().run_in_executor(None, _hash, file)
    try:
        await asyncio.shield(hashing)
    finally:
        await asyncio.wait([hashing])
    return hashing.result()


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while part := file.read(PART):
        digest.update(part)
    return digest.hexdigest()


def _head(file: BinaryIO) -> bytes:
    """The file is at its start again."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head
