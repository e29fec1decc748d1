"""Options of a Riva request, converted to ours; lists those without effect."""

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

__all__ = ["HEAD_BYTES", "Options", "parse_audio", "parse_options"]

HEAD_BYTES = 16
"""Bytes that identify a container."""
AUTO_LANGUAGES = ("", "auto", "multi")
SILENCE, MIN_BLANKS = 0.6, 3.0
"""Default seconds of silence, and of blank tokens, that end an utterance."""
START_THRESHOLD = 0.2
"""Default share of speech in the start window that begins an utterance."""
START_HISTORY_MS = 320
SECOND_PASS_LAG_INTERVAL = 0.02
"""Lag interval in seconds while finals wait for a second pass."""
ENDPOINTING_FIELDS = (
    "start_history",
    "start_threshold",
    "stop_history",
    "stop_threshold",
    "stop_history_eou",
    "stop_threshold_eou",
)
"""Endpointing fields; they are also accepted in the custom configuration."""


@dataclass(frozen=True)
class Options:
    model: str | None = None
    language: str | None = None
    endpointing: Endpointing = Endpointing()  # noqa: RUF009  it is frozen
    second_pass: float = 0.0
    """Seconds between the two passes of end-of-utterance detection; 0 for a single pass."""
    interim: bool = False
    with_words: bool = False
    punctuation: bool = False
    """Whether the text has capitals and punctuation."""
    channels: int = 1
    """Channels that are transcribed separately."""
    ignored: tuple[str, ...] = ()
    """Names of requested options without effect."""

    @property
    def stream_request(self) -> StreamRequest:
        lag_interval = SECOND_PASS_LAG_INTERVAL if self.second_pass else LAG_INTERVAL
        return StreamRequest(
            model=self.model, language=self.language, endpointing=self.endpointing, lag_interval=lag_interval
        )


def parse_options(config: RecognitionConfig, models: ModelDirectory, interim: bool = False) -> Options:
    """Raises BadOption."""
    values, custom = _endpointing_values(config), dict(config.custom_configuration)
    endpointing, second_pass = _endpointing(values, custom.get("neural_vad.onset"))
    if config.max_alternatives < 0 or config.audio_channel_count < 0:
        raise BadOption("negative number of alternatives or channels", "omit it")
    language = config.language_code
    return Options(
        model=config.model if config.model and models.is_known(config.model) else None,
        language=None if language.lower() in AUTO_LANGUAGES else language,
        endpointing=endpointing,
        second_pass=second_pass,
        interim=interim,
        with_words=config.enable_word_time_offsets,
        punctuation=config.enable_automatic_punctuation,
        channels=config.audio_channel_count or 1 if config.enable_separate_recognition_per_channel else 1,
        ignored=tuple(_ignored(config, values)),
    )


def parse_audio(config: RecognitionConfig, head: bytes = b"") -> AudioFormat:
    """Uses the declared encoding, unless the first bytes identify a container. Raises BadOption."""
    encoding = config.encoding
    if encoding not in AudioEncoding.values():
        raise BadOption(f"unknown encoding {encoding}", f"use one of: {', '.join(AudioEncoding.keys())}")
    channels = config.audio_channel_count or 1
    # Clients that send a file declare its codec.
    if encoding in (AudioEncoding.FLAC, AudioEncoding.OGGOPUS) or is_container(head):
        return AudioFormat("container", channels=channels)
    rate = config.sample_rate_hertz or 16_000
    if encoding == AudioEncoding.MULAW:
        return AudioFormat("mulaw", rate, channels)
    return AudioFormat("alaw" if encoding == AudioEncoding.ALAW else "pcm16", rate, channels)


def _endpointing_values(config: RecognitionConfig) -> dict[str, float]:
    """Collects the set endpointing values from both places."""
    values = {name: value for name, value in config.custom_configuration.items() if name in ENDPOINTING_FIELDS}
    parsed = {name: _parse_number(name, value) for name, value in values.items()}
    endpointing_config: EndpointingConfig = config.endpointing_config
    return parsed | {
        name: float(getattr(endpointing_config, name))
        for name in ENDPOINTING_FIELDS
        if endpointing_config.HasField(name)
    }


def _endpointing(values: Mapping[str, float], onset: str | None) -> tuple[Endpointing, float]:
    """Returns the endpointing and the seconds from the first to the second pass. Raises BadOption."""
    for name, value in values.items():
        if not 0 <= value <= (1 if "threshold" in name else 60_000):
            raise BadOption(f"{name} of {value:g}", "lengths are 0 to 60000 ms, thresholds 0 to 1")
    final_silence = values["stop_history"] / 1000 if "stop_history" in values else SILENCE
    first_silence = min(values.get("stop_history_eou", final_silence * 1000) / 1000, final_silence)
    endpointing = Endpointing(silence=first_silence, blanks=max(MIN_BLANKS, final_silence))
    if "stop_history" in values:
        endpointing = replace(
            endpointing, end_token=None
        )  # an explicit value overrides the model's end-of-utterance token
    if "start_history" in values or "start_threshold" in values:
        threshold = values.get("start_threshold", START_THRESHOLD)
        endpointing = replace(
            endpointing, begin_seconds=values.get("start_history", START_HISTORY_MS) / 1000 * threshold
        )
    if onset is not None:
        endpointing = replace(endpointing, speech=_parse_number("neural_vad.onset", onset))
    return endpointing, round(final_silence - first_silence, 3)


def _ignored(config: RecognitionConfig, values: Mapping[str, float]) -> Iterator[str]:
    if config.max_alternatives > 1:
        yield "max_alternatives"
    if config.profanity_filter:
        yield "profanity_filter"
    if any(context.phrases for context in config.speech_contexts):
        yield "speech_contexts"
    if config.diarization_config.enable_speaker_diarization:
        yield "diarization_config"
    yield from (name for name in ("stop_threshold", "stop_threshold_eou") if name in values)
    for name, value in config.custom_configuration.items():
        if (name, value.lower()) != ("enable_vad_endpointing", "true") and name not in (
            *ENDPOINTING_FIELDS,
            "neural_vad.onset",
        ):
            yield f"custom_configuration.{name}"


def _parse_number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise BadOption(f"{name} is {value!r}", "it must be a number") from None
