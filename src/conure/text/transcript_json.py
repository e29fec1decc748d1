"""Transcripts as dictionaries for JSON."""

from __future__ import annotations

from typing import Any

from conure.types import Segment, Transcript, Word

__all__ = ["transcript_fields"]


def transcript_fields(transcript: Transcript) -> dict[str, Any]:
    """The JSON form; it has `channel` only if channels were transcribed separately."""
    fields: dict[str, Any] = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "model": transcript.model,
        "segments": [_segment(segment) for segment in transcript.segments],
        "problems": list(transcript.problems),
    }
    return fields if transcript.channel is None else {"channel": transcript.channel} | fields


def _segment(segment: Segment) -> dict[str, Any]:
    words = [_word(word) for word in segment.words]
    return {"text": segment.text, "start": _rounded(segment.start), "end": _rounded(segment.end), "words": words}


def _word(word: Word) -> dict[str, Any]:
    times = {"start": _rounded(word.start), "end": _rounded(word.end)}
    return {"text": word.text} | times | {"confidence": _rounded(word.confidence)}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
