"""Wire formats of the session: the flat format of the first version, and the current one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from conure.protocols.realtime.session import BadSession, Session

__all__ = ["session_changes", "flat_session_body", "session_body"]

FORMATS = {
    "pcm16": {"type": "audio/pcm"},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
FORMAT_NAMES = {audio["type"]: name for name, audio in FORMATS.items()}
FLAT_FIELDS = {
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
    "input_audio_noise_reduction": "noise_reduction",
}
"""Flat field names, and the fields of `audio.input` that they correspond to."""


def session_changes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a session in either format to changes. Raises BadSession for an unknown audio format."""
    changes = {name: fields[name] for name in ("type", "audio", "include") if name in fields}
    flat = {FLAT_FIELDS[name]: fields[name] for name in FLAT_FIELDS if name in fields}
    if (name := fields.get("input_audio_format")) is not None:
        if not isinstance(name, str) or name not in FORMATS:
            known = ", ".join(FORMATS)
            param = "session.input_audio_format"
            raise BadSession(f"unknown input_audio_format {name!r}", f"use one of {known}", param)
        flat["format"] = FORMATS[name]
    if flat:
        changes["audio"] = {"input": flat}
    return changes


def session_body(session: Session, session_id: str) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(session)
    return {"object": "realtime.transcription_session", "id": session_id, "expires_at": 0} | body


def flat_session_body(session: Session, session_id: str) -> dict[str, Any]:
    audio_input = session.input
    body = {flat: msgspec.to_builtins(getattr(audio_input, name)) for flat, name in FLAT_FIELDS.items()}
    return {
        "object": "realtime.transcription_session",
        "id": session_id,
        "expires_at": 0,
        "input_audio_format": FORMAT_NAMES[audio_input.format.type],
        **body,
        "include": session.include,
    }
