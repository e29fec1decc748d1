"""What the query of a live connection asks for, of either version."""

from __future__ import annotations

from conure.audio.formats import AudioFormat, Encoding
from conure.errors import BadOption
from conure.protocols.deepgram.query import DeepgramQuery

__all__ = ["COMMON", "audio_of", "language_of"]

COMMON = {
    "model",
    "version",
    "encoding",
    "sample_rate",
    "channels",
    "language",
    "tag",
    "extra",
    "mip_opt_out",
    "api_key",
}
"""Parameters that are met, or mean nothing here."""

ENCODINGS: dict[str, Encoding] = {
    "linear16": "pcm16",
    "linear32": "f32",
    "mulaw": "mulaw",
    "alaw": "alaw",
    "flac": "container",
    "opus": "container",
    "ogg-opus": "container",
}
"""Opus comes in Ogg, and FLAC with its header: both are told by what arrives, as containers are without a name."""
ANY_LANGUAGE = "multi"


def audio_of(query: DeepgramQuery) -> AudioFormat:
    """Raises BadOption. Without an encoding it is a container, which tells all the rest."""
    name = query.text("encoding")
    if name is None:
        return AudioFormat("container", channels=query.whole("channels", 1))
    encoding = ENCODINGS.get(name.lower())
    if encoding is None:
        raise BadOption(f"encoding {name!r} is not taken", f"send one of: {', '.join(ENCODINGS)}, or a container")
    if encoding == "container":
        return AudioFormat(encoding, channels=query.whole("channels", 1))
    if query.text("sample_rate") is None:
        raise BadOption(f"encoding={name} came without sample_rate", "say how many samples a second has")
    return AudioFormat(encoding, query.whole("sample_rate", 0), query.whole("channels", 1))


def language_of(query: DeepgramQuery) -> str | None:
    """None where the model is to find out, or knows but one."""
    language = query.text("language")
    return None if language is None or language.lower() == ANY_LANGUAGE else language
