"""The session as clients write it: the flat shape of the protocol's first version, and the one that has followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from conure.protocols.realtime.session import BadSession, Session

__all__ = ["session_changes", "flat_session_body", "shape"]

FORMATS = {
    "pcm16": {"type": "audio/pcm"},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
NAMES = {audio["type"]: name for name, audio in FORMATS.items()}
FLAT = {
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
    "input_audio_noise_reduction": "noise_reduction",
}
"""Their names, and those of the same in `audio.input`."""


def session_changes(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a session in either shape changes. Raises BadSession for a format that is not known."""
    changes = {name: said[name] for name in ("type", "audio", "include") if name in said}
    flat = {FLAT[name]: said[name] for name in FLAT if name in said}
    if (name := said.get("input_audio_format")) is not None:
        if not isinstance(name, str) or name not in FORMATS:
            known = ", ".join(FORMATS)
            param = "session.input_audio_format"
            raise BadSession(f"input_audio_format {name!r} is not known", f"it is one of {known}", param)
        flat["format"] = FORMATS[name]
    if flat:
        changes["audio"] = {"input": flat}
    return changes


def shape(session: Session, number: str) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(session)
    return {"object": "realtime.transcription_session", "id": number, "expires_at": 0} | told


def flat_session_body(session: Session, number: str) -> dict[str, Any]:
    heard = session.input
    told = {flat: msgspec.to_builtins(getattr(heard, name)) for flat, name in FLAT.items()}
    return {
        "object": "realtime.transcription_session",
        "id": number,
        "expires_at": 0,
        "input_audio_format": NAMES[heard.format.type],
        **told,
        "include": session.include,
    }
