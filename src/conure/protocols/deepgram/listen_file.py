"""Transcription of recordings: `POST /v1/listen` with the bytes of a file, or with `{"url": ...}`."""

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
from conure.protocols.deepgram.errors import REQUEST_ID, error_body, error_response
from conure.protocols.deepgram.file_params import FileParams
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.deepgram.transcripts import render_response
from conure.protocols.http.credentials import read_credential
from conure.protocols.http.media_type import JSON, media_type
from conure.protocols.http.uploads import cancel_on_disconnect, disk_errors_as_storage_full
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["listen_file"]

MAX_JSON_BYTES = 2**16
READ_BYTES = 2**20
HEAD_BYTES = 16
"""Bytes that identify a container; some clients send a container and declare raw samples."""


class DeepgramError(BaseModel):
    err_code: str
    err_msg: str
    request_id: str


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": DeepgramError, "description": "The request is invalid; the message says how to fix it."},
    "5XX": {"model": DeepgramError, "description": "At capacity, with `Retry-After`; or an internal error."},
}
URL_SCHEMA = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "format": "uri"}}}
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a recording in any container, or the URL to fetch it from.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": URL_SCHEMA},
        },
    }
}


def listen_file(services: Services) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/listen", response_model=None, responses=ERROR_RESPONSES, openapi_extra=REQUEST_BODY)
    async def listen(request: Request) -> Response:
        """Any audio or video container, or raw samples described by `encoding`, `sample_rate` and `channels`."""
        request_id = str(uuid.uuid4())
        try:
            caller = services.access.identify(read_credential(request.headers, request.query_params))
            params = FileParams.parse(DeepgramQuery(request.query_params.multi_items()), services.live.models)
            if params.callback:
                await services.callbacks.check_url(params.callback)
            async with contextlib.AsyncExitStack() as stack:
                file = await stack.enter_async_context(services.uploads.receive_body(request))
                url = _read_url(file) if _is_json(request, file, params) else None
                job = _TranscriptionJob(services, file, url, params, caller, request_id)
                if params.callback:
                    services.callbacks.schedule(params.callback, job.transcribe_to_json, stack)
                    content = {"request_id": request_id}
                else:
                    content = await cancel_on_disconnect(request, job.transcribe())
        except ConureError as error:
            return error_response(error, request_id)
        return JSONResponse(content, headers=_headers(params, request_id))

    return router


def _headers(params: FileParams, request_id: str) -> dict[str, str]:
    headers = {REQUEST_ID: request_id}
    return headers | {"Conure-Ignored": params.ignored_header} if params.ignored_header else headers


@dataclass(frozen=True)
class _TranscriptionJob:
    """One request and everything needed to answer it."""

    services: Services
    file: BinaryIO
    """The request body."""
    url: str | None
    """URL of the recording; when set, its content replaces the body."""
    params: FileParams
    caller: Caller
    request_id: str

    async def transcribe(self) -> dict[str, Any]:
        services, file, params = self.services, self.file, self.params
        if self.url is not None:
            with disk_errors_as_storage_full():
                file.truncate(0)
                await services.fetcher.fetch(self.url, file, services.uploads.max_bytes)
                file.seek(0)
        sha256 = await _sha256(file)
        recording = with_wav_header(file, params.audio) if params.audio and not is_container(_head(file)) else file
        if params.multichannel:
            transcripts = await services.files.transcribe_channels(
                recording, params.model, params.language, self.caller, params.track
            )
        else:
            transcripts = [
                await services.files.transcribe(
                    recording, params.model, params.language, self.caller, track=params.track
                )
            ]
        return render_response(params, transcripts, self.request_id, sha256)

    async def transcribe_to_json(self) -> bytes:
        """Returns the result or the error as JSON."""
        try:
            return msgspec.json.encode(await self.transcribe())
        except ConureError as error:
            return msgspec.json.encode(error_body(error, self.request_id))


def _is_json(request: Request, file: BinaryIO, params: FileParams) -> bool:
    """Decided by Content-Type, else by a leading `{`, with which no container begins."""
    if media_type(request.headers) == JSON:
        return True
    return params.audio is None and _head(file).lstrip().startswith(b"{")


def _read_url(file: BinaryIO) -> str:
    """Reads the URL and rewinds the file."""
    text = file.read(MAX_JSON_BYTES)
    file.seek(0)
    try:
        return msgspec.json.decode(text, type=_UrlBody).url
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadOption(
            "the body is no JSON with a `url`", 'send {"url": "https://..."} or the bytes of a file'
        ) from None


class _UrlBody(msgspec.Struct):
    url: str


async def _sha256(file: BinaryIO) -> str:
    """Also when cancelled, returns only after the thread has stopped reading the file."""
    task = asyncio.get_running_loop().run_in_executor(None, _hash_file, file)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait([task])
    return task.result()


def _hash_file(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := file.read(READ_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _head(file: BinaryIO) -> bytes:
    """Reads the first bytes and rewinds the file."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head
