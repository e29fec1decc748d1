"""A transcript as Deepgram has it: metadata, channels with their words and paragraphs, utterances."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from conure.protocols.deepgram.file_params import FileParams
from conure.protocols.deepgram.words import alternative, mean_confidence, model_info, model_uuid, transcript, word
from conure.text.phrases import find_phrase, replace_phrase
from conure.text.segments import pause_between, segments_from_words
from conure.text.words import join_words
from conure.types import Segment, Transcript, Word

__all__ = ["answer"]

PARAGRAPH_PAUSE = 1.5
"""Seconds of silence between sentences of two paragraphs."""
MOST_SENTENCES = 6
"""Of a paragraph."""


def answer(wanted: FileParams, found: Sequence[Transcript], request_id: str, sha256: str) -> dict[str, Any]:
    """`found`: of each channel, or one of all; `sha256`: of the bytes that were sent or fetched."""
    channels = [_replaced(wanted, transcript.words) for transcript in found]
    results: dict[str, Any] = {"channels": [_channel(wanted, words) for words in channels]}
    if wanted.utt_split is not None:
        results["utterances"] = _utterances(wanted, channels)
    return {"metadata": _metadata(wanted, found, request_id, sha256), "results": results}


def _metadata(wanted: FileParams, found: Sequence[Transcript], request_id: str, sha256: str) -> dict[str, Any]:
    number = model_uuid(wanted.card)
    fields: dict[str, Any] = {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration": found[0].duration,
        "channels": len(found),
        "models": [number],
        "model_info": {number: model_info(wanted.card)},
    }
    if wanted.tags:
        fields["tags"] = list(wanted.tags)
    if wanted.extra:
        fields["extra"] = dict(wanted.extra)
    if warnings := [*_missed(wanted), *_problems(found)]:
        fields["warnings"] = warnings
    return fields


def _missed(wanted: FileParams) -> Iterator[dict[str, str]]:
    for name in wanted.ignored:
        yield {"parameter": name, "type": "ignored", "message": f"{name} has no effect on this server"}


def _problems(found: Sequence[Transcript]) -> Iterator[dict[str, str]]:
    for problem in found[0].problems:
        yield {"parameter": "audio", "type": "damaged", "message": problem}


def _replaced(wanted: FileParams, words: Sequence[Word]) -> Sequence[Word]:
    for phrase, other in wanted.replace:
        words = replace_phrase(words, phrase, other)
    return words


def _channel(wanted: FileParams, words: Sequence[Word]) -> dict[str, Any]:
    heard = alternative(words, wanted.written)
    if wanted.paragraphs:
        heard["paragraphs"] = _paragraphs(words)
    searched = [{"query": query, "hits": _hits(words, query)} for query in wanted.search]
    return ({"search": searched} if searched else {}) | {"alternatives": [heard]}


def _hits(words: Sequence[Word], query: str) -> list[dict[str, Any]]:
    parts = [words[begin:end] for begin, end in find_phrase(words, query)]
    return [_span(part) | {"snippet": transcript(part, written=False)} for part in parts]


def _span(words: Sequence[Word]) -> dict[str, Any]:
    return {"confidence": mean_confidence(words), "start": words[0].start, "end": words[-1].end}


def _paragraphs(words: Sequence[Word]) -> dict[str, Any]:
    told = [_paragraph(sentences) for sentences in _together(segments_from_words(words))]
    text = "\n\n".join(text for text, _ in told)
    return {"transcript": f"\n{text}", "paragraphs": [fields for _, fields in told]}


def _together(sentences: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Sentences of one paragraph: until a pause, or until there are enough of them."""
    paragraph: list[Segment] = []
    for sentence in sentences:
        if paragraph and (
            len(paragraph) >= MOST_SENTENCES
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
        "sentences": [{"text": each.text, "start": each.start, "end": each.end} for each in sentences],
        "num_words": len(words),
        "start": words[0].start,
        "end": words[-1].end,
    }
    return join_words(words), fields


def _utterances(wanted: FileParams, channels: Sequence[Sequence[Word]]) -> list[dict[str, Any]]:
    """Of all channels, in the order in which they begin."""
    split = wanted.utt_split or 0.0
    parts = [(channel, part) for channel, words in enumerate(channels) for part in _between_pauses(words, split)]
    parts.sort(key=lambda each: (each[1][0].start or 0.0, each[0]))
    return [_utterance(wanted, channel, part) for channel, part in parts]


def _between_pauses(words: Sequence[Word], pause: float) -> Iterator[Sequence[Word]]:
    begin = 0
    for at in range(1, len(words) + 1):
        if at == len(words) or pause_between(words[at - 1], words[at]) >= pause:
            yield words[begin:at]
            begin = at


def _utterance(wanted: FileParams, channel: int, words: Sequence[Word]) -> dict[str, Any]:
    return _span(words) | {
        "channel": channel,
        "transcript": transcript(words, wanted.written),
        "words": [word(said, wanted.written) for said in words],
        "id": str(uuid.uuid4()),
    }
