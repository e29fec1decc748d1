"""Transcripts in OpenAI's response formats."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from conure.constants import ENCODER_FRAME_SECONDS
from conure.engine.plan import ModelInfo
from conure.errors import BadOption
from conure.protocols.openai import schemas
from conure.protocols.openai.logprobs import log_probabilities, text_after
from conure.protocols.openai.request_fields import ResponseFormat
from conure.text.locales import ENGLISH_NAMES
from conure.text.subtitles import render_srt, render_vtt
from conure.text.tokenizer import Tokenizer
from conure.types import Segment, Transcript, Word

__all__ = [
    "as_json",
    "known_language",
    "language_code",
    "language_name",
    "render_done",
    "render_json",
    "render_text",
    "render_verbose",
]


def as_json(body: BaseModel) -> str:
    return body.model_dump_json(exclude_none=True)


def render_text(transcript: Transcript, format_: ResponseFormat) -> str:
    """Renders subtitles or plain text. Raises BadOption for subtitles of words without timestamps."""
    if format_ == "srt":
        return render_srt(transcript.segments)
    if format_ == "vtt":
        return render_vtt(transcript.segments)
    return transcript.text + "\n"


def render_json(transcript: Transcript, language: str | None, tokenizer: Tokenizer | None) -> schemas.Transcription:
    """`tokenizer`: given if log probabilities are requested."""
    return schemas.Transcription(
        text=transcript.text,
        languages=_languages(language),
        logprobs=_logprobs(transcript, tokenizer),
        usage=schemas.Seconds(seconds=transcript.duration),
        problems=list(transcript.problems) or None,
    )


def render_verbose(
    transcript: Transcript, language: str | None, granularities: Sequence[Literal["word", "segment"]]
) -> schemas.VerboseTranscription:
    """Defaults to segments. Raises BadOption for words without timestamps."""
    included = granularities or ("segment",)
    return schemas.VerboseTranscription(
        language=language_name(language) if language else "",
        language_code=language,
        duration=transcript.duration,
        text=transcript.text,
        words=[_word(word) for word in transcript.words] if "word" in included else None,
        segments=_segments(transcript.segments) if "segment" in included else None,
        usage=schemas.Seconds(seconds=transcript.duration),
        problems=list(transcript.problems) or None,
    )


def render_done(transcript: Transcript, language: str | None, tokenizer: Tokenizer | None) -> schemas.Done:
    """Builds the last event of a stream."""
    input_tokens = math.ceil(transcript.duration / ENCODER_FRAME_SECONDS)
    output_tokens = sum(len(word.tokens) for word in transcript.words)
    return schemas.Done(
        text=transcript.text,
        languages=_languages(language),
        logprobs=_logprobs(transcript, tokenizer),
        usage=schemas.TokenUsage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            input_token_details=schemas.AudioTokens(audio_tokens=input_tokens),
        ),
        problems=list(transcript.problems) or None,
    )


def known_language(transcript: Transcript, model: ModelInfo) -> str | None:
    """Returns the code of the requested language, or of the model's only language."""
    language = transcript.language or (model.languages[0] if len(model.languages) == 1 else None)
    return language_code(language) if language else None


def language_code(language: str) -> str:
    """en-US -> en."""
    return language.replace("_", "-").split("-")[0].lower()


def language_name(code: str) -> str:
    """en -> english. Returns the code itself if it has no name."""
    return ENGLISH_NAMES.get(code, code)


def _languages(code: str | None) -> list[schemas.Language] | None:
    return [schemas.Language(code=code)] if code else None


def _logprobs(transcript: Transcript, tokenizer: Tokenizer | None) -> list[schemas.LogProbability] | None:
    return list(log_probabilities(transcript.words, tokenizer)) if tokenizer else None


def _word(word: Word) -> schemas.Word:
    confidence = None if word.confidence is None else round(word.confidence, 3)
    return schemas.Word(word=word.text, start=_time(word.start), end=_time(word.end), confidence=confidence)


def _segments(segments: Sequence[Segment]) -> list[schemas.Segment]:
    previous_words = (segments[number - 1].words[-1] if number else None for number in range(len(segments)))
    return [_segment(number, *both) for number, both in enumerate(zip(segments, previous_words, strict=True))]


def _segment(number: int, segment: Segment, previous: Word | None) -> schemas.Segment:
    start, tokens = _time(segment.start), [token for word in segment.words for token in word.tokens]
    logprobs = [token.log_probability for token in tokens if token.log_probability is not None]
    return schemas.Segment(
        id=number,
        seek=round(start * 100),
        start=start,
        end=_time(segment.end),
        text=text_after(segment.words, previous),
        tokens=[token.id for token in tokens],
        avg_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        compression_ratio=_compression_ratio(segment.text),
    )


def _compression_ratio(text: str) -> float:
    """High for repetitive text; defined as in Whisper."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _time(seconds: float | None) -> float:
    if seconds is None:
        raise BadOption("this model gives no timestamps", "use json or text")
    return round(seconds, 3)
