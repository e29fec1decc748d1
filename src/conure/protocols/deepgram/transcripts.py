"""Transcripts in Deepgram's response format: metadata, channels with words and paragraphs, utterances."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from conure.protocols.deepgram.file_params import FileParams
from conure.protocols.deepgram.words import (
    alternative,
    mean_confidence,
    model_info,
    model_uuid,
    render_word,
    transcript,
)
from conure.text.phrases import find_phrase, replace_phrase
from conure.text.segments import pause_between, segments_from_words
from conure.text.words import join_words
from conure.types import Segment, Transcript, Word

__all__ = ["render_response"]

PARAGRAPH_PAUSE = 1.5
"""Seconds of silence that begin a new paragraph."""
MAX_SENTENCES = 6
"""Sentences in a paragraph, at most."""


def render_response(
    params: FileParams, transcripts: Sequence[Transcript], request_id: str, sha256: str
) -> dict[str, Any]:
    """`transcripts`: one per channel, or one for the mix; `sha256`: of the bytes that were sent or fetched."""
    channels = [_replace_phrases(params, transcript.words) for transcript in transcripts]
    results: dict[str, Any] = {"channels": [_channel(params, words) for words in channels]}
    if params.utt_split is not None:
        results["utterances"] = _utterances(params, channels)
    return {"metadata": _metadata(params, transcripts, request_id, sha256), "results": results}


def _metadata(params: FileParams, transcripts: Sequence[Transcript], request_id: str, sha256: str) -> dict[str, Any]:
    model_id = model_uuid(params.model)
    fields: dict[str, Any] = {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration": transcripts[0].duration,
        "channels": len(transcripts),
        "models": [model_id],
        "model_info": {model_id: model_info(params.model)},
    }
    if params.tags:
        fields["tags"] = list(params.tags)
    if params.extra:
        fields["extra"] = dict(params.extra)
    if warnings := [*_ignored_warnings(params), *_problem_warnings(transcripts)]:
        fields["warnings"] = warnings
    return fields


def _ignored_warnings(params: FileParams) -> Iterator[dict[str, str]]:
    for name in params.ignored:
        yield {"parameter": name, "type": "ignored", "message": f"{name} has no effect on this server"}


def _problem_warnings(transcripts: Sequence[Transcript]) -> Iterator[dict[str, str]]:
    for problem in transcripts[0].problems:
        yield {"parameter": "audio", "type": "damaged", "message": problem}


def _replace_phrases(params: FileParams, words: Sequence[Word]) -> Sequence[Word]:
    for phrase, replacement in params.replace:
        words = replace_phrase(words, phrase, replacement)
    return words


def _channel(params: FileParams, words: Sequence[Word]) -> dict[str, Any]:
    fields = alternative(words, params.written)
    if params.paragraphs:
        fields["paragraphs"] = _paragraphs(words)
    searches = [{"query": query, "hits": _hits(words, query)} for query in params.search]
    return ({"search": searches} if searches else {}) | {"alternatives": [fields]}


def _hits(words: Sequence[Word], query: str) -> list[dict[str, Any]]:
    parts = [words[begin:end] for begin, end in find_phrase(words, query)]
    return [_span(part) | {"snippet": transcript(part, written=False)} for part in parts]


def _span(words: Sequence[Word]) -> dict[str, Any]:
    return {"confidence": mean_confidence(words), "start": words[0].start, "end": words[-1].end}


def _paragraphs(words: Sequence[Word]) -> dict[str, Any]:
    paragraphs = [_paragraph(sentences) for sentences in _group_sentences(segments_from_words(words))]
    text = "\n\n".join(text for text, _ in paragraphs)
    return {"transcript": f"\n{text}", "paragraphs": [fields for _, fields in paragraphs]}


def _group_sentences(sentences: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Groups sentences into paragraphs, which end at a pause or at the maximum length."""
    paragraph: list[Segment] = []
    for sentence in sentences:
        if paragraph and (
            len(paragraph) >= MAX_SENTENCES
            or pause_between(paragraph[-1].words[-1], sentence.words[0]) >= PARAGRAPH_PAUSE
        ):
            yield paragraph
            paragraph = []
        paragraph.append(sentence)
    if paragraph:
        yield paragraph


def _paragraph(sentences: Sequence[Segment]) -> tuple[str, dict[str, Any]]:
    words = [word for sentence in sentences for word in sentence.words]
    fields = {
        "sentences": [{"text": sentence.text, "start": sentence.start, "end": sentence.end} for sentence in sentences],
        "num_words": len(words),
        "start": words[0].start,
        "end": words[-1].end,
    }
    return join_words(words), fields


def _utterances(params: FileParams, channels: Sequence[Sequence[Word]]) -> list[dict[str, Any]]:
    """Returns the utterances of all channels by start time."""
    split = params.utt_split or 0.0
    parts = [(channel, part) for channel, words in enumerate(channels) for part in _between_pauses(words, split)]
    parts.sort(key=lambda part: (part[1][0].start or 0.0, part[0]))
    return [_utterance(params, channel, part) for channel, part in parts]


def _between_pauses(words: Sequence[Word], pause: float) -> Iterator[Sequence[Word]]:
    begin = 0
    for at in range(1, len(words) + 1):
        if at == len(words) or pause_between(words[at - 1], words[at]) >= pause:
            yield words[begin:at]
            begin = at


def _utterance(params: FileParams, channel: int, words: Sequence[Word]) -> dict[str, Any]:
    return _span(words) | {
        "channel": channel,
        "transcript": transcript(words, params.written),
        "words": [render_word(word, params.written) for word in words],
        "id": str(uuid.uuid4()),
    }
