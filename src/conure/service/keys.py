"""API keys and the file that stores them.

    cnr_5f0c2a9d81be_8Zf...     the secret: a public id and 32 random bytes

The file is JSON and is read again when it has changed. It contains hashes, never secrets.
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
CHECK_INTERVAL = 1.0
"""Seconds between checks whether the file has changed."""


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the secret."""
    created: datetime
    scopes: tuple[Scope, ...] = SCOPES
    limits: Limits = NO_LIMITS


class _KeyFileContent(Struct, kw_only=True, forbid_unknown_fields=True):
    keys: list[Key]


def new_key(
    name: str, created: datetime, scopes: tuple[Scope, ...] = SCOPES, limits: Limits = NO_LIMITS
) -> tuple[Key, str]:
    """A new key and its secret, which is not stored anywhere."""
    number = secrets.token_hex(6)
    secret = f"{PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    return Key(id=number, name=name, hash=_hash(secret), created=created, scopes=scopes, limits=limits), secret


def read_keys(path: Path) -> list[Key]:
    """Raises BadOption if the file does not exist, cannot be read, or is invalid."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=_KeyFileContent).keys
    except FileNotFoundError:
        raise BadOption(f"key file {path} does not exist", _ADD_HINT.format(path)) from None
    except OSError as error:
        raise BadOption(f"key file {path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} is not a key file: {error}", "`conure keys add` creates one") from None
    for field in ("id", "name"):
        values = [getattr(key, field) for key in keys]
        if duplicate := next((value for value in values if values.count(value) > 1), None):
            raise BadOption(f"{path} has two keys with the {field} {duplicate!r}", "remove one of them")
    return keys


def encode_keys(keys: Iterable[Key]) -> str:
    """The content of a key file."""
    return msgspec.json.format(msgspec.json.encode(_KeyFileContent(keys=list(keys))), indent=2).decode() + "\n"


class KeyFile:
    """The keys of a file, which is checked for changes at intervals."""

    def __init__(self, path: Path) -> None:
        """Raises BadOption if the file cannot be read, or contains no key."""
        self._path = path
        self._version = _file_version(path)
        self._keys = {key.id: key for key in read_keys(path)}
        self._checked_at = float("-inf")
        if not self._keys:
            raise BadOption(f"key file {path} contains no key: no client could use the server", _ADD_HINT.format(path))

    def __len__(self) -> int:
        return len(self._keys)

    def find_by_secret(self, secret: str, now: float) -> Key | None:
        """The key with that secret."""
        self._reload_if_changed(now)
        prefix, _, rest = secret.partition("_")
        key = self._keys.get(rest.partition("_")[0]) if prefix == PREFIX else None
        return key if key and hmac.compare_digest(_hash(secret), key.hash) else None

    def find_by_name(self, name: str, now: float) -> Key | None:
        """The key as it is in the file now, which may have changed."""
        self._reload_if_changed(now)
        return next((key for key in self._keys.values() if key.name == name), None)

    def _reload_if_changed(self, now: float) -> None:
        """If the file is gone, no key is valid; if it is invalid, the previous keys stay valid until it is repaired."""
        if now - self._checked_at < CHECK_INTERVAL:
            return
        self._checked_at = now
        version = _file_version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = {key.id: key for key in read_keys(self._path)} if version else {}
        except BadOption as error:
            log.error("%s; the previous keys stay valid", error.message)
        else:
            log.log(
                logging.INFO if self._keys else logging.WARNING, "%s now contains %d keys", self._path, len(self._keys)
            )


_ADD_HINT = "create one: conure keys add NAME --keys {}"


def _hash(secret: str) -> str:
    """A single SHA-256 is enough: 32 random bytes cannot be guessed, unlike passwords, which need slow hashes."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _file_version(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file has changed; None if it does not exist."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
