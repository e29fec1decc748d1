"""Transcripts as text: plain, subtitles, JSON, or a line per word."""

from __future__ import annotations

import json
from typing import Any, Literal

from conure.text.subtitles import render_srt, render_vtt
from conure.types import Segment, Transcript, Word

__all__ = ["SUFFIXES", "Form", "as_dict", "render"]

Form = Literal["txt", "srt", "vtt", "json", "words"]

SUFFIXES: dict[Form, str] = {"txt": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json", "words": ".tsv"}


def render(transcript: Transcript, form: Form, *, file: str | None = None) -> str:
    """The transcript in a form, with a line break at its end; `file` goes into JSON, on one line then."""
    if form == "txt":
        return transcript.text + "\n"
    if form == "srt":
        return render_srt(transcript.segments)
    if form == "vtt":
        return render_vtt(transcript.segments)
    if form == "words":
        return "".join(f"{_word_line(word)}\n" for word in transcript.words)
    fields = ({} if file is None else {"file": file}) | as_dict(transcript)
    return json.dumps(fields, ensure_ascii=False, indent=2 if file is None else None) + "\n"


def as_dict(transcript: Transcript) -> dict[str, Any]:
    """The JSON form; `channel` is there only where channels were transcribed apart."""
    fields: dict[str, Any] = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "model": transcript.model,
        "segments": [_segment(segment) for segment in transcript.segments],
    }
    return fields if transcript.channel is None else {"channel": transcript.channel} | fields


def _segment(segment: Segment) -> dict[str, Any]:
    words = [_word(word) for word in segment.words]
    return {"text": segment.text, "start": _rounded(segment.start), "end": _rounded(segment.end), "words": words}


def _word(word: Word) -> dict[str, Any]:
    times = {"start": _rounded(word.start), "end": _rounded(word.end)}
    return {"text": word.text} | times | {"confidence": _rounded(word.confidence)}


def _word_line(word: Word) -> str:
    numbers = (word.start, word.end, word.confidence)
    return "\t".join(["" if number is None else f"{number:.3f}" for number in numbers] + [word.text])


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
