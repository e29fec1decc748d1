"""The table of error codes has exactly the codes in use, and all its statuses are valid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus

import grpc
import pytest
from websockets.frames import Close

from conure import errors
from conure.errors import Busy, ConureError, TooMany, Unauthorized
from conure.protocols.error_codes import (
    ERROR_CODES,
    ErrorCode,
    OpenAIType,
    error_code_for,
    error_headers,
    http_status_for,
    message_with_hint,
    retry_after_for,
)
from conure.service.events import Failed
from tests.protocols.servers import ROOT

SOURCES = [
    path for part in ("protocols", "engine", "service") for path in (ROOT / "src" / "conure" / part).rglob("*.py")
]
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
SAYING = {"Failed": (0, 1), "Error": (), "failure_of": (0,), "HttpFault": (0,)}
"""Position of the code argument in calls without `code=`: first for events, second for the engine's answers."""


def codes_in_source() -> Iterator[str]:
    """Error codes that are literals in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
                    if name in SAYING:
                        yield from codes([args[place] for place in SAYING[name] if place < len(args)])
                        yield from codes([keyword.value for keyword in keywords if keyword.arg == "code"])
                case ast.Dict(keys=keys, values=values):
                    if any(isinstance(key, ast.Constant) and key.value == "type" for key in keys):
                        named = zip(keys, values, strict=True)
                        yield from codes([v for k, v in named if isinstance(k, ast.Constant) and k.value == "code"])
                case ast.Subscript(value=ast.Name(id="FAILURES"), slice=ast.Constant(value=str(code))):
                    yield code


def codes(nodes: list[ast.expr]) -> list[str]:
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return [value for value in values if isinstance(value, str) and CODE.fullmatch(value)]


def codes_of_errors() -> set[str]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ConureError)]
    return {kind.code for kind in kinds}


def test_every_error_is_in_the_table() -> None:
    assert codes_of_errors() >= {"error", "busy", "too_many", "unauthorized"}
    assert codes_of_errors() <= ERROR_CODES.keys()


def test_every_code_in_the_source_is_in_the_table() -> None:
    result = set(codes_in_source())
    assert {"lag_exceeded", "server_stopped", "client_too_slow", "idle", "displaced"} <= result
    assert result <= ERROR_CODES.keys()


def test_no_entry_is_unused() -> None:
    by_default = {"bad_message"}  # default of protocol.Error
    assert ERROR_CODES.keys() == codes_of_errors() | set(codes_in_source()) | by_default


@pytest.mark.parametrize(("code", "failure"), ERROR_CODES.items())
def test_every_status_is_valid(code: str, failure: ErrorCode) -> None:
    assert CODE.fullmatch(code)
    assert HTTPStatus(failure.http) >= 400
    assert Close(failure.close, "").serialize()  # raises for codes that must not be sent
    assert failure.close != 1000
    assert grpc.StatusCode[failure.grpc] is not grpc.StatusCode.OK
    assert failure.openai in OpenAIType.__args__  # type: ignore[attr-defined]
    assert failure.deepgram


@pytest.mark.parametrize("failure", ERROR_CODES.values())
def test_columns_agree_on_client_or_server_error(failure: ErrorCode) -> None:
    is_ours = failure.http >= 500
    assert (failure.close in (1011, 1012, 1013)) == (is_ours or failure.http in (408, 429)) or failure.http == 408
    assert (failure.openai == "server_error") == is_ours
    assert (failure.openai == "rate_limit_error") == (failure.http == 429)
    if failure.grpc in ("INTERNAL", "UNAVAILABLE"):
        assert is_ours


def test_retryable_errors_have_retry_after() -> None:
    error = TooMany("enough", "wait", 41.2)
    assert (http_status_for(error), retry_after_for(error), error_code_for(error).close) == (429, 41.2, 1013)
    assert error_headers(error) == {"Retry-After": "42"}
    assert error_headers(Busy("full", retry_after=0.1)) == {"Retry-After": "1"}
    assert error_headers(Failed("lag_exceeded", "late", retry_after=2.0)) == {"Retry-After": "2"}
    assert error_headers(ConureError("odd")) == {}
    assert error_headers(Unauthorized("who?")) == {"WWW-Authenticate": "Bearer"}


def test_unknown_code_is_an_internal_error() -> None:
    assert error_code_for("never_heard_of") == error_code_for("error")
    assert message_with_hint(TooMany("enough", "wait")) == "enough: wait"
    assert message_with_hint(Failed("idle", "nothing was said")) == "nothing was said"
