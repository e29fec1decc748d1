"""API keys: how they are made, what is kept of them, and the file that they are in.

    cnr_5f0c2a9d81be_8Zf...     the secret: an id that may be seen, and 32 random bytes that may not

The file is JSON, read again when it has changed; the secret is not in it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, get_args

import msgspec
from msgspec import Meta, Struct

from conure.errors import BadOption
from conure.service.access import Scope
from conure.service.limits import NO_LIMITS, Limits

__all__ = ["SCOPES", "Key", "KeyFile", "new_key", "read_keys", "encode_keys"]

log = logging.getLogger(__name__)

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "cnr"
LOOK = 1.0
"""Seconds between looks at whether the file has changed."""


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Of the secret."""
    created: datetime
    scopes: tuple[Scope, ...] = SCOPES
    limits: Limits = NO_LIMITS


class _Kept(Struct, kw_only=True, forbid_unknown_fields=True):
    keys: list[Key]


def new_key(
    name: str, created: datetime, scopes: tuple[Scope, ...] = SCOPES, limits: Limits = NO_LIMITS
) -> tuple[Key, str]:
    """A key and its secret, which is nowhere else."""
    number = secrets.token_hex(6)
    secret = f"{PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    return Key(id=number, name=name, hash=_hashed(secret), created=created, scopes=scopes, limits=limits), secret


def read_keys(path: Path) -> list[Key]:
    """Raises BadOption where the file is not there, cannot be read, or is something else."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=_Kept).keys
    except FileNotFoundError:
        raise BadOption(f"the file of keys {path} does not exist", _ADD.format(path)) from None
    except OSError as error:
        raise BadOption(f"the file of keys {path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} is no file of keys: {error}", "`conure keys` writes it") from None
    for what in ("id", "name"):
        seen = [getattr(key, what) for key in keys]
        if twice := next((value for value in seen if seen.count(value) > 1), None):
            raise BadOption(f"{path} has two keys of the {what} {twice!r}", "remove one of them")
    return keys


def encode_keys(keys: Iterable[Key]) -> str:
    """What is in the file."""
    return msgspec.json.format(msgspec.json.encode(_Kept(keys=list(keys))), indent=2).decode() + "\n"


class KeyFile:
    """The keys that are in a file now, or were a moment ago."""

    def __init__(self, path: Path) -> None:
        """Raises BadOption where it cannot be read, or has no key in it."""
        self._path = path
        self._state = _state_of(path)
        self._keys = {key.id: key for key in read_keys(path)}
        self._looked = float("-inf")
        if not self._keys:
            raise BadOption(f"there is no key in {path}: nobody could use the server", _ADD.format(path))

    def __len__(self) -> int:
        return len(self._keys)

    def find_by_secret(self, secret: str, now: float) -> Key | None:
        """The key of that secret."""
        self._look(now)
        prefix, _, rest = secret.partition("_")
        key = self._keys.get(rest.partition("_")[0]) if prefix == PREFIX else None
        return key if key and hmac.compare_digest(_hashed(secret), key.hash) else None

    def find_by_name(self, name: str, now: float) -> Key | None:
        """As it is now, which may be otherwise than when it was found."""
        self._look(now)
        return next((key for key in self._keys.values() if key.name == name), None)

    def _look(self, now: float) -> None:
        """A file that has gone lets nobody in; one that is broken changes nothing until it is mended."""
        if now - self._looked < LOOK:
            return
        self._looked = now
        state = _state_of(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = {key.id: key for key in read_keys(self._path)} if state else {}
        except BadOption as error:
            log.error("%s; the keys from before still count", error.message)
        else:
            log.log(logging.INFO if self._keys else logging.WARNING, "%s has %d keys now", self._path, len(self._keys))


_ADD = "`conure keys add NAME --keys {}` makes one"


def _hashed(secret: str) -> str:
    """One round of SHA-256: slow hashes are for what people think of, and nobody can try out 32 random bytes."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """Another one when the file has changed; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
