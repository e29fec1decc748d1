"""Short-lived secrets that a server of a client's own gives to a browser, so that the key itself stays at home.

    ek_<what it is for>.<signature>      who minted it, until when, and with which session

Nothing is kept: whoever has the key that signed one can open it, so every process of a server opens what another
minted. A secret may be used any number of times until it expires; what was begun with it goes on.
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
MOST_SESSION = 4096
"""Bytes of a session in JSON: a secret has to fit into a header."""


class SecretClaims(Struct, frozen=True):
    caller: str
    """Name of the key that it was minted with; empty where there are no keys."""
    expires_at: int
    """Seconds since the epoch."""
    session: dict[str, Any]
    """What was asked for when it was minted."""


class MintedSecret(Struct, frozen=True):
    value: str
    expires_at: int


_opened = msgspec.json.Decoder(SecretClaims)


class ClientSecrets:
    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        """`key`: the same in all processes of a server, and known to nobody else. Without keys it may be empty."""
        self._key, self._now = key, now

    def mint(self, caller: str, seconds: int, session: dict[str, Any]) -> MintedSecret:
        """Raises BadOption for a time that is not taken, and for a session that does not fit."""
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise BadOption(f"a secret for {seconds} seconds", f"it must be {MIN_SECONDS} to {MAX_SECONDS}")
        if (size := len(msgspec.json.encode(session))) > MOST_SESSION:
            raise BadOption(f"a session of {size} bytes", f"a secret takes {MOST_SESSION}; say the rest when connected")
        expires_at = int(self._now()) + seconds
        said = msgspec.json.encode(SecretClaims(caller, expires_at, session))
        return MintedSecret(f"{PREFIX}{_text(said)}.{_text(self._signature(said))}", expires_at)

    def verify(self, secret: str | None) -> SecretClaims | None:
        """None for what is none, was minted elsewhere, or has expired."""
        if not secret or not secret.startswith(PREFIX):
            return None
        said, _, signature = secret.removeprefix(PREFIX).partition(".")
        try:
            payload = _bytes(said)
            if not hmac.compare_digest(_bytes(signature), self._signature(payload)):
                return None
            opened = _opened.decode(payload)
        except (binascii.Error, UnicodeError, msgspec.DecodeError):
            return None
        return opened if self._now() < opened.expires_at else None

    def _signature(self, said: bytes) -> bytes:
        return hmac.digest(self._key, said, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
