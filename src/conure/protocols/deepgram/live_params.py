"""Query parameters that both versions of the live protocol share."""

from __future__ import annotations

from conure.audio.formats import AudioFormat, Encoding
from conure.errors import BadOption
from conure.protocols.deepgram.query import DeepgramQuery

__all__ = ["SHARED_PARAMETERS", "parse_audio", "parse_language"]

SHARED_PARAMETERS = {
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
"""Parameters that are implemented or have no meaning here."""

ENCODINGS: dict[str, Encoding] = {
    "linear16": "pcm16",
    "linear32": "f32",
    "mulaw": "mulaw",
    "alaw": "alaw",
    "flac": "container",
    "opus": "container",
    "ogg-opus": "container",
}
"""Opus arrives in Ogg and FLAC with its header, so both are detected from the bytes, like a container."""
ANY_LANGUAGE = "multi"


def parse_audio(query: DeepgramQuery) -> AudioFormat:
    """Without `encoding` the audio is a container that describes itself. Raises BadOption."""
    name = query.text("encoding")
    if name is None:
        return AudioFormat("container", channels=query.whole("channels", 1))
    encoding = ENCODINGS.get(name.lower())
    if encoding is None:
        raise BadOption(f"unsupported encoding {name!r}", f"send one of: {', '.join(ENCODINGS)}, or a container")
    if encoding == "container":
        return AudioFormat(encoding, channels=query.whole("channels", 1))
    if query.text("sample_rate") is None:
        raise BadOption(f"encoding={name} requires sample_rate", "add sample_rate in Hz")
    return AudioFormat(encoding, query.whole("sample_rate", 0), query.whole("channels", 1))


def parse_language(query: DeepgramQuery) -> str | None:
    """None if the model detects the language or has only one."""
    language = query.text("language")
    return None if language is None or language.lower() == ANY_LANGUAGE else language
