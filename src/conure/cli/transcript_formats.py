"""Transcripts as plain text, subtitles, JSON, or one line per word."""

from __future__ import annotations

import json
from typing import Literal

from conure.text.subtitles import render_srt, render_vtt
from conure.text.transcript_json import transcript_fields
from conure.types import Transcript, Word

__all__ = ["SUFFIXES", "TranscriptFormat", "render_transcript"]

TranscriptFormat = Literal["txt", "srt", "vtt", "json", "words"]

SUFFIXES: dict[TranscriptFormat, str] = {"txt": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json", "words": ".tsv"}


def render_transcript(transcript: Transcript, transcript_format: TranscriptFormat, *, file: str | None = None) -> str:
    """The transcript in a format, ending with a newline. With `file`, JSON is one line that contains this name."""
    if transcript_format == "txt":
        return transcript.text + "\n"
    if transcript_format == "srt":
        return render_srt(transcript.segments)
    if transcript_format == "vtt":
        return render_vtt(transcript.segments)
    if transcript_format == "words":
        return "".join(f"{_word_line(word)}\n" for word in transcript.words)
    fields = ({} if file is None else {"file": file}) | transcript_fields(transcript)
    return json.dumps(fields, ensure_ascii=False, indent=2 if file is None else None) + "\n"


def _word_line(word: Word) -> str:
    numbers = (word.start, word.end, word.confidence)
    return "\t".join(["" if number is None else f"{number:.3f}" for number in numbers] + [word.text])
