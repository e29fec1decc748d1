"""Transcripts as text: plain, subtitles, JSON, or a line per word."""

from __future__ import annotations

import json
from typing import Literal

from conure.text.subtitles import render_srt, render_vtt
from conure.text.transcript_json import transcript_fields
from conure.types import Transcript, Word

__all__ = ["SUFFIXES", "Form", "render"]

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
    fields = ({} if file is None else {"file": file}) | transcript_fields(transcript)
    return json.dumps(fields, ensure_ascii=False, indent=2 if file is None else None) + "\n"


def _word_line(word: Word) -> str:
    numbers = (word.start, word.end, word.confidence)
    return "\t".join(["" if number is None else f"{number:.3f}" for number in numbers] + [word.text])
