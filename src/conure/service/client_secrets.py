"""Short-lived client secrets: an application's backend mints them for browsers, so that its API key stays there.

    ek_<claims>.<signature>      claims: the caller that minted it, its expiry, and a session

Secrets are not stored: every process of a server has the signing key and can verify them. A secret may be used any
number of times until it expires; sessions that were opened with it go on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from conure.errors import BadOption

__all__ = ["MIN_SECONDS", "MAX_SECONDS", "ClientSecrets", "MintedSecret", "SecretClaims"]

PREFIX = "ek_"
MIN_SECONDS, MAX_SECONDS = 10, 7200
MAX_SESSION_BYTES = 4096
"""Of a session in JSON: a secret has to fit into a header."""


class SecretClaims(Struct, frozen=True):
    caller: str
    """Name of the key that minted it; empty without keys."""
    expires_at: int
    """Seconds since the epoch."""
    session: dict[str, Any]
    """Session fields of the mint request."""


class MintedSecret(Struct, frozen=True):
    value: str
    expires_at: int


_claims = msgspec.json.Decoder(SecretClaims)


class ClientSecrets:
    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        """`key`: shared by all processes of a server. It may be empty if API keys are off."""
        self._key, self._now = key, now

    def mint(self, caller: str, seconds: int, session: dict[str, Any]) -> MintedSecret:
        """Raises BadOption for an expiry out of range, and for a session that is too large."""
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise BadOption(f"a client secret cannot be valid for {seconds} s", f"use {MIN_SECONDS} to {MAX_SECONDS} s")
        if (size := len(msgspec.json.encode(session))) > MAX_SESSION_BYTES:
            raise BadOption(
                f"the session of a client secret has {size} bytes",
                f"at most {MAX_SESSION_BYTES} fit; send the rest after connecting",
            )
        expires_at = int(self._now()) + seconds
        payload = msgspec.json.encode(SecretClaims(caller, expires_at, session))
        return MintedSecret(f"{PREFIX}{_encode(payload)}.{_encode(self._signature(payload))}", expires_at)

    def verify(self, secret: str | None) -> SecretClaims | None:
        """The claims of a valid secret; None if it is malformed, was signed with another key, or has expired."""
        if not secret or not secret.startswith(PREFIX):
            return None
        text, _, signature = secret.removeprefix(PREFIX).partition(".")
        try:
            payload = _decode(text)
            if not hmac.compare_digest(_decode(signature), self._signature(payload)):
                return None
            claims = _claims.decode(payload)
        except (binascii.Error, UnicodeError, msgspec.DecodeError):
            return None
        return claims if self._now() < claims.expires_at else None

    def _signature(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
