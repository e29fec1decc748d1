"""Query parameters of a request that transcribes a recording."""

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

__all__ = ["KNOWN", "FileParams"]

KNOWN = frozenset(
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
"""Parameters that are implemented, or that have no meaning here (`mip_opt_out`: this server trains no models)."""

CONTAINER_ENCODINGS = ("amr-nb", "amr-wb", "speex", "g729")
"""Encodings that are supported only inside a container, which identifies them."""
DEFAULT_UTT_SPLIT = 0.8
CALLBACK_METHODS = ("POST", "PUT")


@dataclass(frozen=True)
class FileParams:
    """The parsed parameters. `parse` raises BadOption and UnknownModel."""

    model: ModelInfo
    language: str | None
    """None: the model detects it."""
    written: bool
    """With punctuation and capitals."""
    paragraphs: bool
    utt_split: float | None
    """Pause in seconds that separates utterances; None: no utterances are requested."""
    multichannel: bool
    search: tuple[str, ...]
    replace: tuple[tuple[str, str], ...]
    tags: tuple[str, ...]
    extra: tuple[tuple[str, str], ...]
    audio: AudioFormat | None
    """Format of raw samples; None for a container."""
    track: int | None
    """Extension of Conure: the audio track, from 1; None selects the default audible track."""
    callback: Callback | None
    """Receives the result; None: the result is the HTTP response."""
    ignored: tuple[str, ...]

    @classmethod
    def parse(cls, query: DeepgramQuery, models: ModelDirectory) -> FileParams:
        model = models.find_file_model(query.text("model"))
        punctuate, smart_format = query.flag("punctuate"), query.flag("smart_format")
        paragraphs = query.flag("paragraphs") or smart_format
        return cls(
            model=model,
            language=_language(query, model),
            written=punctuate or paragraphs,
            paragraphs=paragraphs,
            utt_split=_utterance_pause(query) if query.flag("utterances") else None,
            multichannel=query.flag("multichannel"),
            search=tuple(query.texts("search")),
            replace=tuple(_pair("replace", text) for text in query.texts("replace")),
            tags=tuple(query.texts("tag")),
            extra=tuple(_pair("extra", text) for text in query.texts("extra")),
            audio=_audio(query),
            track=_track(query),
            callback=_callback(query),
            ignored=tuple(query.ignored(KNOWN | {"detect_language"} if _can_detect_language(model) else KNOWN)),
        )

    @property
    def ignored_header(self) -> str:
        return header_names(self.ignored)


def _language(query: DeepgramQuery, model: ModelInfo) -> str | None:
    """`multi` means detection; for a model with a single language it is rejected as an unknown language."""
    language = query.text("language")
    if query.is_on("detect_language") or (language == "multi" and _can_detect_language(model)):
        return None
    return language


def _can_detect_language(model: ModelInfo) -> bool:
    """Whether the model may detect the language; assumed if its languages are unknown."""
    return len(model.languages) != 1


def _utterance_pause(query: DeepgramQuery) -> float:
    seconds = query.number("utt_split", DEFAULT_UTT_SPLIT)
    if seconds <= 0:
        raise BadOption(f"utt_split is {seconds:g}", "it must be more than 0 seconds")
    return seconds


def _pair(name: str, text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not (key.strip() and colon):
        raise BadOption(f"{name} is {text!r}", "use the form key:value")
    return key.strip(), value.strip()


def _callback(query: DeepgramQuery) -> Callback | None:
    url = query.text("callback")
    if url is None:
        return None
    method = (query.text("callback_method") or "POST").upper()
    if method not in CALLBACK_METHODS:
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
    if name is None or name.lower() in CONTAINER_ENCODINGS:
        return None
    encoding = parse_encoding(name)
    if encoding == "container":
        return None
    if query.text("sample_rate") is None:
        raise BadOption(f"encoding={name} requires sample_rate", "add sample_rate in Hz")
    return AudioFormat(encoding, query.whole("sample_rate", 0), query.whole("channels", 1))
