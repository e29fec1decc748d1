"""What a request for a recording asks for."""

from __future__ import annotations

from dataclasses import dataclass

from conure.audio.formats import AudioFormat, parse_encoding
from conure.engine.plan import ModelInfo
from conure.errors import BadOption
from conure.protocols.deepgram.query import DeepgramQuery
from conure.safe_text import header_names
from conure.service.callbacks import Callback
from conure.service.model_directory import ModelDirectory
from conure.service.safe_http import parse_url

__all__ = ["DONE", "FileParams"]

DONE = frozenset(
    (
        *("model", "language", "punctuate", "smart_format", "paragraphs", "filler_words"),
        *(
            "utterances",
            "utt_split",
            "multichannel",
            "search",
            "replace",
            "tag",
            "extra",
            "callback",
            "callback_method",
        ),
        *("encoding", "sample_rate", "channels", "track", "api_key", "version", "mip_opt_out"),
    )
)
"""Parameters that have the effect that was asked for, or have none to miss: one's own server learns from nobody."""

IN_CONTAINERS = ("amr-nb", "amr-wb", "speex", "g729")
"""Encodings that are read where they are in a file of their own, which tells what it is."""
UTT_SPLIT = 0.8
METHODS = ("POST", "PUT")


@dataclass(frozen=True)
class FileParams:
    """Raises BadOption and UnknownModel where it is read."""

    card: ModelInfo
    language: str | None
    """None lets the model find out."""
    written: bool
    """With marks and capitals."""
    paragraphs: bool
    utt_split: float | None
    """Seconds of a pause between utterances; None where none are wanted."""
    multichannel: bool
    search: tuple[str, ...]
    replace: tuple[tuple[str, str], ...]
    tags: tuple[str, ...]
    extra: tuple[tuple[str, str], ...]
    audio: AudioFormat | None
    """Of samples without a head; None for a container, which tells its own."""
    track: int | None
    """Ours: which of several audio tracks, from 1; None takes the default one among those with sound."""
    callback: Callback | None
    """Where the answer is to be sent; None to him who asks."""
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, query: DeepgramQuery, models: ModelDirectory) -> FileParams:
        card = models.find_file_model(query.text("model"))
        punctuate, smart = query.flag("punctuate"), query.flag("smart_format")
        paragraphs = query.flag("paragraphs") or smart
        return cls(
            card=card,
            language=_language(query, card),
            written=punctuate or paragraphs,
            paragraphs=paragraphs,
            utt_split=_split(query) if query.flag("utterances") else None,
            multichannel=query.flag("multichannel"),
            search=tuple(query.texts("search")),
            replace=tuple(_pair("replace", text) for text in query.texts("replace")),
            tags=tuple(query.texts("tag")),
            extra=tuple(_pair("extra", text) for text in query.texts("extra")),
            audio=_audio(query),
            track=_track(query),
            callback=_callback(query),
            ignored=tuple(query.ignored(DONE | {"detect_language"} if _detects(card) else DONE)),
        )

    @property
    def ignored_header(self) -> str:
        return header_names(self.ignored)


def _language(query: DeepgramQuery, card: ModelInfo) -> str | None:
    """`multi` is a language like others to a model that has one, and so refused."""
    language = query.text("language")
    if query.is_on("detect_language") or (language == "multi" and _detects(card)):
        return None
    return language


def _detects(card: ModelInfo) -> bool:
    """Where its languages are not known it may."""
    return len(card.languages) != 1


def _split(query: DeepgramQuery) -> float:
    split = query.number("utt_split", UTT_SPLIT)
    if split <= 0:
        raise BadOption(f"utt_split is {split:g}", "it must be more than 0 seconds")
    return split


def _pair(name: str, text: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not (left.strip() and colon):
        raise BadOption(f"{name} is {text!r}", "it must be two texts with a colon between them")
    return left.strip(), right.strip()


def _callback(query: DeepgramQuery) -> Callback | None:
    url = query.text("callback")
    if url is None:
        return None
    method = (query.text("callback_method") or "POST").upper()
    if method not in METHODS:
        raise BadOption(f"callback_method is {method!r}", "it must be POST or PUT")
    return Callback(parse_url(url), method)


def _track(query: DeepgramQuery) -> int | None:
    if query.text("track") is None:
        return None
    track = query.whole("track", 1)
    if track < 1:
        raise BadOption(f"track is {track}", "tracks are counted from 1")
    return track


def _audio(query: DeepgramQuery) -> AudioFormat | None:
    name = query.text("encoding")
    if name is None or name.lower() in IN_CONTAINERS:
        return None
    encoding = parse_encoding(name)
    if encoding == "container":
        return None
    if query.text("sample_rate") is None:
        raise BadOption(f"encoding={name} comes without sample_rate", "say how many samples a second there are")
    return AudioFormat(encoding, query.whole("sample_rate", 0), query.whole("channels", 1))
