"""Transcripts as OpenAI's clients read them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from conure.decoding.emitted_token import STEP_SECONDS
from conure.engine.plan import ModelInfo
from conure.errors import BadOption
from conure.protocols.openai import schemas as shapes
from conure.protocols.openai.language_names import language_code, language_name
from conure.protocols.openai.logprobs import log_probabilities, text_after
from conure.protocols.openai.request_fields import ResponseFormat
from conure.text.subtitles import render_srt, render_vtt
from conure.text.tokenizer import Tokenizer
from conure.types import Segment, Transcript, Word

__all__ = ["as_json", "done", "known_language", "plain", "transcription", "verbose"]


def as_json(said: BaseModel) -> str:
    return said.model_dump_json(exclude_none=True)


def plain(transcript: Transcript, form: ResponseFormat) -> str:
    """Subtitles, or the text alone. Raises BadOption for subtitles of words without times."""
    if form == "srt":
        return render_srt(transcript.segments)
    if form == "vtt":
        return render_vtt(transcript.segments)
    return transcript.text + "\n"


def transcription(transcript: Transcript, language: str | None, logprobs: Tokenizer | None) -> shapes.Transcription:
    """`logprobs`: the tokenizer where they are wanted."""
    return shapes.Transcription(
        text=transcript.text,
        languages=_languages(language),
        logprobs=_log_probabilities(transcript, logprobs),
        usage=shapes.Seconds(seconds=transcript.duration),
        problems=list(transcript.problems) or None,
    )


def verbose(
    transcript: Transcript, language: str | None, granularities: Sequence[Literal["word", "segment"]]
) -> shapes.VerboseTranscription:
    """Segments where nothing else is wanted. Raises BadOption for words without times."""
    wanted = granularities or ("segment",)
    return shapes.VerboseTranscription(
        language=language_name(language) if language else "",
        language_code=language,
        duration=transcript.duration,
        text=transcript.text,
        words=[_word(word) for word in transcript.words] if "word" in wanted else None,
        segments=_segments(transcript.segments) if "segment" in wanted else None,
        usage=shapes.Seconds(seconds=transcript.duration),
        problems=list(transcript.problems) or None,
    )


def done(transcript: Transcript, language: str | None, logprobs: Tokenizer | None) -> shapes.Done:
    """The last event of a stream."""
    heard = math.ceil(transcript.duration / STEP_SECONDS)
    said = sum(len(word.tokens) for word in transcript.words)
    return shapes.Done(
        text=transcript.text,
        languages=_languages(language),
        logprobs=_log_probabilities(transcript, logprobs),
        usage=shapes.TokenUsage(
            input_tokens=heard,
            output_tokens=said,
            total_tokens=heard + said,
            input_token_details=shapes.AudioTokens(audio_tokens=heard),
        ),
        problems=list(transcript.problems) or None,
    )


def known_language(transcript: Transcript, card: ModelInfo) -> str | None:
    """The code of the language that was asked for, or of the only one that the model has."""
    language = transcript.language or (card.languages[0] if len(card.languages) == 1 else None)
    return language_code(language) if language else None


def _languages(code: str | None) -> list[shapes.Language] | None:
    return [shapes.Language(code=code)] if code else None


def _log_probabilities(transcript: Transcript, tokenizer: Tokenizer | None) -> list[shapes.LogProbability] | None:
    return list(log_probabilities(transcript.words, tokenizer)) if tokenizer else None


def _word(word: Word) -> shapes.Word:
    confidence = None if word.confidence is None else round(word.confidence, 3)
    return shapes.Word(word=word.text, start=_time(word.start), end=_time(word.end), confidence=confidence)


def _segments(segments: Sequence[Segment]) -> list[shapes.Segment]:
    befores = (segments[number - 1].words[-1] if number else None for number in range(len(segments)))
    return [_segment(number, *both) for number, both in enumerate(zip(segments, befores, strict=True))]


def _segment(number: int, segment: Segment, before: Word | None) -> shapes.Segment:
    start, tokens = _time(segment.start), [token for word in segment.words for token in word.tokens]
    probabilities = [token.log_probability for token in tokens if token.log_probability is not None]
    return shapes.Segment(
        id=number,
        seek=round(start * 100),
        start=start,
        end=_time(segment.end),
        text=text_after(segment.words, before),
        tokens=[token.id for token in tokens],
        avg_logprob=sum(probabilities) / len(probabilities) if probabilities else None,
        compression_ratio=_compression_ratio(segment.text),
    )


def _compression_ratio(text: str) -> float:
    """Is high where the same is said again and again; as Whisper has it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _time(seconds: float | None) -> float:
    if seconds is None:
        raise BadOption("this model gives no times", "ask for json or text")
    return round(seconds, 3)
