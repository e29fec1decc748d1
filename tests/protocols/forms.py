"""Sends multipart forms as clients do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2

from tests.protocols.servers import DEMO, PATIENCE, Server

__all__ = ["TRANSCRIPTIONS", "Field", "parts", "send"]

TRANSCRIPTIONS = "/v1/audio/transcriptions"

Field = tuple[str, str]


def parts(fields: Sequence[Field], file: bytes | None, name: str = "speech.flac") -> list[tuple[str, Any]]:
    """Parts of a multipart form, in order; `file` is the first."""
    recording = [] if file is None else [("file", (name, file, "application/octet-stream"))]
    return [*recording, *((field, (None, value)) for field, value in fields)]


def send(
    server: Server, *fields: Field, file: bytes | None = DEMO.read_bytes(), name: str = "speech.flac"
) -> httpx2.Response:
    return httpx2.post(server.base + TRANSCRIPTIONS, files=parts(fields, file, name), timeout=PATIENCE)
