"""Places in which clients of different protocols send their keys."""

from __future__ import annotations

import pytest

from conure.protocols.http.credentials import offered_subprotocols, read_credential


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer s3cret"},
        {"authorization": "bearer   s3cret "},
        {"authorization": "Token s3cret"},
        {"x-api-key": "s3cret"},
        {"api-key": "s3cret"},
        {"sec-websocket-protocol": "token, s3cret"},
        {"sec-websocket-protocol": "realtime, openai-insecure-api-key.s3cret, openai-beta.realtime-v1"},
        {"sec-websocket-protocol": "realtime,realtime-token.s3cret"},
    ],
)
def test_key_is_found(headers: dict[str, str]) -> None:
    assert read_credential(headers) == "s3cret"


def test_header_takes_precedence_over_query() -> None:
    assert read_credential({}, {"api_key": "query"}) == "query"
    assert read_credential({"authorization": "Bearer header"}, {"api_key": "query"}) == "header"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": " "},
        {"sec-websocket-protocol": "token"},
        {"sec-websocket-protocol": "realtime, realtime-token."},
    ],
)
def test_no_key(headers: dict[str, str]) -> None:
    assert read_credential(headers) is None


def test_subprotocols() -> None:
    assert offered_subprotocols({"sec-websocket-protocol": "a, b ,,c"}) == ["a", "b", "c"]
    assert offered_subprotocols({}) == []
