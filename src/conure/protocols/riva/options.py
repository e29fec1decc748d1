"""What a Riva client asks for, in our words, and what of it has no effect here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from conure.audio.containers import is_container
from conure.audio.formats import AudioFormat
from conure.errors import BadOption
from conure.protocols.riva.riva_asr_pb2 import EndpointingConfig, RecognitionConfig
from conure.protocols.riva.riva_audio_pb2 import AudioEncoding
from conure.service.live_service import StreamRequest
from conure.service.model_directory import ModelDirectory
from conure.service.session_options import LAG_INTERVAL
from conure.vad.endpointing import Endpointing

__all__ = ["HEAD", "Options", "audio_of", "options_of"]

HEAD = 16
"""Bytes by which a container is known."""
ANY_LANGUAGE = ("", "auto", "multi")
SILENCE, BLANKS = 0.6, 3.0
"""Seconds that end an utterance where the client says none."""
SPOKEN_SHARE = 0.2
"""Of the window that begins an utterance."""
BEGIN_MS = 320
FOLLOWED = 0.02
"""Seconds between two words on how far a stream is that waits for a second pass."""
NUMBERS = (
    "start_history",
    "start_threshold",
    "stop_history",
    "stop_threshold",
    "stop_history_eou",
    "stop_threshold_eou",
)
"""Of endpointing; they may be in the custom configuration, too."""


@dataclass(frozen=True)
class Options:
    model: str | None = None
    language: str | None = None
    endpointing: Endpointing = Endpointing()  # noqa: RUF009  it is frozen
    second_pass: float = 0.0
    """Seconds between the two passes of an end of utterance; 0 where there is one."""
    interim: bool = False
    words: bool = False
    marks: bool = False
    """Capitals and punctuation."""
    channels: int = 1
    """Those that are transcribed apart."""
    ignored: tuple[str, ...] = ()
    """Names of what was asked for and has no effect."""

    @property
    def stream_request(self) -> StreamRequest:
        every = FOLLOWED if self.second_pass else LAG_INTERVAL
        return StreamRequest(model=self.model, language=self.language, endpointing=self.endpointing, lag_interval=every)


def options_of(config: RecognitionConfig, models: ModelDirectory, interim: bool = False) -> Options:
    """Raises BadOption."""
    numbers, custom = _endpointing_numbers(config), dict(config.custom_configuration)
    endpointing, second_pass = _endpointing(numbers, custom.get("neural_vad.onset"))
    if config.max_alternatives < 0 or config.audio_channel_count < 0:
        raise BadOption("a negative number of alternatives or channels", "leave it out")
    language = config.language_code
    return Options(
        model=config.model if config.model and models.is_known(config.model) else None,
        language=None if language.lower() in ANY_LANGUAGE else language,
        endpointing=endpointing,
        second_pass=second_pass,
        interim=interim,
        words=config.enable_word_time_offsets,
        marks=config.enable_automatic_punctuation,
        channels=config.audio_channel_count or 1 if config.enable_separate_recognition_per_channel else 1,
        ignored=tuple(_ignored(config, numbers)),
    )


def audio_of(config: RecognitionConfig, head: bytes = b"") -> AudioFormat:
    """By what the client says and by the first bytes, which know it better. Raises BadOption."""
    known = config.encoding
    if known not in AudioEncoding.values():
        raise BadOption(f"encoding {known} is not known", f"choose one of: {', '.join(AudioEncoding.keys())}")
    channels = config.audio_channel_count or 1
    if known in (AudioEncoding.FLAC, AudioEncoding.OGGOPUS) or is_container(head):  # files are sent as what is in them
        return AudioFormat("container", channels=channels)
    rate = config.sample_rate_hertz or 16_000
    if known == AudioEncoding.MULAW:
        return AudioFormat("mulaw", rate, channels)
    return AudioFormat("alaw" if known == AudioEncoding.ALAW else "pcm16", rate, channels)


def _endpointing_numbers(config: RecognitionConfig) -> dict[str, float]:
    """Those that were set, wherever they were."""
    numbers = {name: value for name, value in config.custom_configuration.items() if name in NUMBERS}
    found = {name: _number(name, value) for name, value in numbers.items()}
    given: EndpointingConfig = config.endpointing_config
    return found | {name: float(getattr(given, name)) for name in NUMBERS if given.HasField(name)}


def _endpointing(numbers: Mapping[str, float], onset: str | None) -> tuple[Endpointing, float]:
    """With the seconds from the first pass to the second. Raises BadOption."""
    for name, value in numbers.items():
        if not 0 <= value <= (1 if "threshold" in name else 60_000):
            raise BadOption(f"{name} of {value:g}", "lengths are 0 to 60000 ms, thresholds 0 to 1")
    last = numbers["stop_history"] / 1000 if "stop_history" in numbers else SILENCE
    first = min(numbers.get("stop_history_eou", last * 1000) / 1000, last)
    ours = Endpointing(silence=first, blanks=max(BLANKS, last))
    if "stop_history" in numbers:
        ours = replace(ours, end_token=None)  # the client's word counts more than the network's
    if "start_history" in numbers or "start_threshold" in numbers:
        share = numbers.get("start_threshold", SPOKEN_SHARE)
        ours = replace(ours, begin_seconds=numbers.get("start_history", BEGIN_MS) / 1000 * share)
    if onset is not None:
        ours = replace(ours, speech=_number("neural_vad.onset", onset))
    return ours, round(last - first, 3)


def _ignored(config: RecognitionConfig, numbers: Mapping[str, float]) -> Iterator[str]:
    if config.max_alternatives > 1:
        yield "max_alternatives"
    if config.profanity_filter:
        yield "profanity_filter"
    if any(context.phrases for context in config.speech_contexts):
        yield "speech_contexts"
    if config.diarization_config.enable_speaker_diarization:
        yield "diarization_config"
    yield from (name for name in ("stop_threshold", "stop_threshold_eou") if name in numbers)
    for name, value in config.custom_configuration.items():
        if (name, value.lower()) != ("enable_vad_endpointing", "true") and name not in (*NUMBERS, "neural_vad.onset"):
            yield f"custom_configuration.{name}"


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise BadOption(f"{name} is {value!r}", "it must be a number") from None
