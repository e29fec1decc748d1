"""Finds the client's key in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["accepted_subprotocol", "read_credential", "offered_subprotocols"]

SCHEMES = ("bearer", "token")
KEY_HEADERS = ("x-api-key", "api-key")
SUBPROTOCOL_KEYS = ("openai-insecure-api-key.", "realtime-token.")
SUBPROTOCOL_SCHEMES = ("token", "bearer")
"""The subprotocol after one of these is the key."""


def read_credential(headers: Mapping[str, str], query: Mapping[str, str] | None = None) -> str | None:
    """From `Authorization`, `X-API-Key`, a WebSocket's subprotocols, or `api_key` in the query; None if there is none.

    `headers`: with lower-case names.
    """
    scheme, _, secret = headers.get("authorization", "").strip().partition(" ")
    if secret.strip() and scheme.lower() in SCHEMES:
        return secret.strip()
    for name in KEY_HEADERS:
        if secret := headers.get(name, "").strip():
            return secret
    return _key_in_subprotocols(offered_subprotocols(headers)) or (query or {}).get("api_key") or None


def offered_subprotocols(headers: Mapping[str, str]) -> list[str]:
    return [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",") if name.strip()]


def accepted_subprotocol(headers: Mapping[str, str]) -> str | None:
    """The subprotocol to accept: the first that is not a key. Browsers close the connection if none is accepted."""
    offered = offered_subprotocols(headers)
    secret = _key_in_subprotocols(offered)
    secrets = {secret, *(f"{prefix}{secret}" for prefix in SUBPROTOCOL_KEYS)}
    return next((name for name in offered if name not in secrets), None)


def _key_in_subprotocols(offered: Sequence[str]) -> str | None:
    for name, following in zip(offered, [*offered[1:], ""], strict=False):
        if name.lower() in SUBPROTOCOL_SCHEMES and following:
            return following
        for prefix in SUBPROTOCOL_KEYS:
            if name.startswith(prefix) and len(name) > len(prefix):
                return name.removeprefix(prefix)
    return None
