"""Small files of a checkpoint folder, read with a limit of their size, and JSON objects in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conure.errors import BadCheckpoint
from conure.models.config_values import short_repr

__all__ = ["read_bounded", "read_json"]

MAX_BYTES = 64 * 2**20


def read_bounded(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a file of at most `limit` bytes."""
    try:
        if (size := path.stat().st_size) > limit:
            raise BadCheckpoint(f"{path.name} has {size:,} bytes; the limit is {limit:,}")
        if not path.is_file():
            raise BadCheckpoint(f"{path.name} is not a file")
        return path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path.name} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of bounded size."""
    try:
        value = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:  # ValueError also for numbers of thousands of digits
        raise BadCheckpoint(f"{path.name} is not JSON: {short_repr(str(error))}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path.name} is {short_repr(value)}, not a JSON object")
    return value
