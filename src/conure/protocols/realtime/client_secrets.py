"""`POST /v1/realtime/client_secrets`, and `/v1/realtime/transcription_sessions` of the protocol's first version.

Both return a short-lived secret for `/v1/realtime` and the session that it starts with. Clients of Riva and NIM start
with the second endpoint, so its session includes the fields that they read.
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
from conure.protocols.realtime.session_schemas import flat_session_body, session_body, session_changes
from conure.protocols.services import Services
from conure.service.access import Caller

__all__ = ["client_secrets_router"]

DEFAULT_SECONDS = 600
MAX_BODY_BYTES = 2**16


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


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The request is invalid; the message says how to fix it.",
        "content": {"application/json": {}},
    },
    "5XX": {"description": "At capacity, or an internal error.", "content": {"application/json": {}}},
}
REQUEST_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def client_secrets_router(services: Services) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/realtime/client_secrets", responses=ERROR_RESPONSES, openapi_extra=REQUEST_BODY)
    async def client_secret(request: Request) -> JSONResponse:
        """Creates a secret for a browser, with the session that it opens."""
        try:
            caller = _caller(services, request)
            body = _parse(await _body(request), SecretRequest)
            changes = session_changes(body.session or {})
            session = _validate(services, Session().updated(changes))
            minted = services.secrets.mint(caller.name, (body.expires_after or Expiry()).seconds, changes)
        except ConureError as error:
            return _error_response(error)
        session_fields = session_body(session, IdSource().session)
        return JSONResponse({"value": minted.value, "expires_at": minted.expires_at, "session": session_fields})

    @router.post("/v1/realtime/transcription_sessions", responses=ERROR_RESPONSES, openapi_extra=REQUEST_BODY)
    async def transcription_session(request: Request) -> JSONResponse:
        """Creates a secret in the format of the first version."""
        try:
            caller = _caller(services, request)
            body = await _body(request)
            secret = _parse(body, FlatSecretRequest).client_secret or FlatSecret()
            changes = session_changes(_parse(body, dict[str, Any]))
            session = _validate(services, Session().updated(changes))
            expiry = secret.expires_at or secret.expires_after or Expiry()
            minted = services.secrets.mint(caller.name, expiry.seconds, changes)
        except ConureError as error:
            return _error_response(error)
        session_fields = flat_session_body(session, IdSource().session)
        nim_fields = {name: value for name, value in NimSession().fields.items() if name not in session_fields}
        return JSONResponse(
            session_fields | nim_fields | {"client_secret": {"value": minted.value, "expires_at": minted.expires_at}}
        )

    return router


def _caller(services: Services, request: Request) -> Caller:
    """Authenticates before the body is read or models are looked up. Raises Unauthorized or Forbidden."""
    secret = read_credential(request.headers, request.query_params)
    caller = services.access.identify(secret)
    if services.secrets.verify(secret):
        raise Forbidden("a client secret cannot create another one", "use the API key, on your own server")
    return caller


def _validate(services: Services, session: Session) -> Session:
    """Raises BadRequest if no stream could be opened for the session."""
    session.audio(b"")
    services.live.resolve_options(
        session.stream_request(services.live.models.find_live_model(session.input.transcription.model))
    )
    return session


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadClientEvent("invalid_value", f"the body exceeds {MAX_BODY_BYTES} bytes")
    return body or b"{}"


def _parse(body: bytes, type_: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadClientEvent("invalid_value", f"invalid body: {error}", "send JSON") from None


def _error_response(error: ConureError) -> JSONResponse:
    return JSONResponse({"error": error_body(error)}, http_status_for(error))
