"""The table of failures has a line for all that can go wrong, and no other; and what it says can be said."""

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
"""Where a call has a code, but for `code=`: events name it first, the engine's answers after the stream's number."""


def written() -> Iterator[str]:
    """Codes that the source has in so many words."""
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


def raised() -> set[str]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ConureError)]
    return {kind.code for kind in kinds}


def test_every_error_has_a_line() -> None:
    assert raised() >= {"error", "busy", "too_many", "unauthorized"}
    assert raised() <= ERROR_CODES.keys()


def test_every_code_in_the_source_has_a_line() -> None:
    found = set(written())
    assert {"lag_exceeded", "server_stopped", "client_too_slow", "idle", "displaced"} <= found
    assert found <= ERROR_CODES.keys()


def test_no_line_is_for_nothing() -> None:
    by_default = {"bad_message"}  # of protocol.Error
    assert ERROR_CODES.keys() == raised() | set(written()) | by_default


@pytest.mark.parametrize(("code", "failure"), ERROR_CODES.items())
def test_every_column_can_be_said(code: str, failure: ErrorCode) -> None:
    assert CODE.fullmatch(code)
    assert HTTPStatus(failure.http) >= 400
    assert Close(failure.close, "").serialize()  # refuses codes that may not be sent
    assert failure.close != 1000
    assert grpc.StatusCode[failure.grpc] is not grpc.StatusCode.OK
    assert failure.openai in OpenAIType.__args__  # type: ignore[attr-defined]
    assert failure.deepgram


@pytest.mark.parametrize("failure", ERROR_CODES.values())
def test_columns_agree_on_whose_fault_it_is(failure: ErrorCode) -> None:
    is_ours = failure.http >= 500
    assert (failure.close in (1011, 1012, 1013)) == (is_ours or failure.http in (408, 429)) or failure.http == 408
    assert (failure.openai == "server_error") == is_ours
    assert (failure.openai == "rate_limit_error") == (failure.http == 429)
    if failure.grpc in ("INTERNAL", "UNAVAILABLE"):
        assert is_ours


def test_what_goes_well_later_says_when() -> None:
    error = TooMany("enough", "wait", 41.2)
    assert (http_status_for(error), retry_after_for(error), error_code_for(error).close) == (429, 41.2, 1013)
    assert error_headers(error) == {"Retry-After": "42"}
    assert error_headers(Busy("full", retry_after=0.1)) == {"Retry-After": "1"}
    assert error_headers(Failed("lag_exceeded", "late", retry_after=2.0)) == {"Retry-After": "2"}
    assert error_headers(ConureError("odd")) == {}
    assert error_headers(Unauthorized("who?")) == {"WWW-Authenticate": "Bearer"}


def test_what_is_not_in_the_table_is_our_fault() -> None:
    assert error_code_for("never_heard_of") == error_code_for("error")
    assert message_with_hint(TooMany("enough", "wait")) == "enough: wait"
    assert message_with_hint(Failed("idle", "nothing was said")) == "nothing was said"
