"""Files of a checkpoint's folder that are small, and JSON in them: no more is read than is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conure.errors import BadCheckpoint
from conure.models.config_values import short_repr

__all__ = ["read_bounded", "read_json"]

MAX_BYTES = 64 * 2**20


def read_bounded(path: Path, limit: int = MAX_BYTES) -> bytes:
    """A file that has no more than so many bytes."""
    try:
        if (size := path.stat().st_size) > limit:
            raise BadCheckpoint(f"{path.name} has {size:,} bytes; more than {limit:,} is not believed")
        if not path.is_file():
            raise BadCheckpoint(f"{path.name} is no file")
        return path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path.name} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, of bounded size."""
    try:
        value = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise BadCheckpoint(f"{path.name} is not JSON: {short_repr(str(error))}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path.name} is {short_repr(value)} and no JSON object")
    return value
