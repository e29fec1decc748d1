"""`POST /v1/realtime/client_secrets`, and `/v1/realtime/transcription_sessions` of the protocol's first version.

Both give a secret that opens `/v1/realtime` for a while, and the session that it begins with. The second is where
clients of Riva and NIM begin, too: what they look for in a session is there.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from msgspec import Struct

from conure.errors import ConureError, Forbidden
from conure.protocols.error_codes import http_status_for
from conure.protocols.http.credentials import read_credential
from conure.protocols.realtime.messages import BadClientEvent, IdSource, error_body
from conure.protocols.realtime.nim import NimSession
from conure.protocols.realtime.session import Session
from conure.protocols.realtime.session_schemas import flat_session_body, session_changes, shape
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["client_secrets_router"]

DEFAULT_SECONDS = 600
MOST_BYTES = 2**16


class Expiry(Struct, frozen=True):
    seconds: int = DEFAULT_SECONDS
    anchor: Literal["created_at"] = "created_at"


class SecretRequest(Struct, frozen=True):
    expires_after: Expiry | None = None
    session: dict[str, Any] | None = None


class FlatSecret(Struct, frozen=True):
    expires_at: Expiry | None = None
    expires_after: Expiry | None = None


class FlatSecretRequest(Struct, frozen=True):
    client_secret: FlatSecret | None = None


MISTAKES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What is wrong, and how to mend it.", "content": {"application/json": {}}},
    "5XX": {"description": "No room for it now; or our fault.", "content": {"application/json": {}}},
}
SESSION = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def client_secrets_router(behind: Services) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/realtime/client_secrets", responses=MISTAKES, openapi_extra=SESSION)
    async def client_secret(request: Request) -> JSONResponse:
        """A secret for a browser, and the session that it opens."""
        try:
            caller = _caller(behind, request)
            wish = _read(await _body(request), SecretRequest)
            asked = session_changes(wish.session or {})
            session = _checked(behind, Session().updated(asked))
            minted = behind.secrets.mint(caller.name, (wish.expires_after or Expiry()).seconds, asked)
        except ConureError as error:
            return _refused(error)
        told = shape(session, IdSource().session)
        return JSONResponse({"value": minted.value, "expires_at": minted.expires_at, "session": told})

    @router.post("/v1/realtime/transcription_sessions", responses=MISTAKES, openapi_extra=SESSION)
    async def transcription_session(request: Request) -> JSONResponse:
        """The same in the form of the first version."""
        try:
            caller = _caller(behind, request)
            body = await _body(request)
            secret = _read(body, FlatSecretRequest).client_secret or FlatSecret()
            asked = session_changes(_read(body, dict[str, Any]))
            session = _checked(behind, Session().updated(asked))
            expiry = secret.expires_at or secret.expires_after or Expiry()
            minted = behind.secrets.mint(caller.name, expiry.seconds, asked)
        except ConureError as error:
            return _refused(error)
        told = flat_session_body(session, IdSource().session)
        also = {name: value for name, value in NimSession().shape.items() if name not in told}
        return JSONResponse(told | also | {"client_secret": {"value": minted.value, "expires_at": minted.expires_at}})

    return router


def _caller(behind: Services, request: Request) -> Caller:
    """Found before anything is read: strangers are told nothing of models. Raises Unauthorized or Forbidden."""
    secret = read_credential(request.headers, request.query_params)
    caller = behind.access.identify(secret)
    if behind.secrets.verify(secret):
        raise Forbidden("a client secret mints no other", "use the key itself, on a server of your own")
    return caller


def _checked(behind: Services, session: Session) -> Session:
    """Raises BadRequest where no stream could be opened for it."""
    session.audio(b"")
    behind.live.resolve_options(
        session.stream_request(behind.live.models.find_live_model(session.input.transcription.model))
    )
    return session


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BadClientEvent("invalid_value", f"the session has more than {MOST_BYTES} bytes")
    return body or b"{}"


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadClientEvent("invalid_value", f"the body is not understood: {error}", "send JSON") from None


def _refused(error: ConureError) -> JSONResponse:
    return JSONResponse({"error": error_body(error)}, http_status_for(error))
