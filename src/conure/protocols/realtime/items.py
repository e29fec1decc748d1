"""Utterances as conversation items: stream events rendered in the order that clients expect.

    speech_started ── delta ── delta ── speech_stopped ── committed ── item.added ── item.done ── delta ── completed

Deltas append stable words only. The last delta adds the rest of the transcript. If the final text contradicts the
deltas, no further delta is sent, and `completed` is authoritative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from conure.protocols.append_only_text import AppendOnlyText
from conure.protocols.openai.logprobs import piece_bytes
from conure.protocols.realtime.messages import IdSource, Message, error_body
from conure.protocols.realtime.session import LOGPROBS, Session, SessionFields
from conure.protocols.realtime.streams import FinalizeRequest
from conure.service.events import Event, Failed, Final, Partial, SpeechStarted, UtteranceEnded
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token

__all__ = ["TRANSCRIPTION", "EventRenderer", "Items"]

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class EventRenderer(Protocol):
    """Renders stream events in one dialect; one instance per connection, used for all of its streams."""

    def render_event(self, event: Event, session: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]: ...

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        """Renders the answer to a finalize request, after all events that precede it."""
        ...

    def render_end(self, seconds: float) -> Iterator[Message]:
        """Renders the end of a stream of this length; unfinished utterances are dropped."""
        ...


@dataclass
class _Item:
    id: str
    start: float
    """Start of its audio, in seconds of the stream."""
    end: float = 0.0
    text: AppendOnlyText = field(default_factory=AppendOnlyText)
    tokens: list[Token] = field(default_factory=list)
    """Tokens not sent yet; kept if log probabilities are requested."""


class Items:
    def __init__(self, ids: IdSource, is_flat: bool) -> None:
        self._ids = ids
        self._added = ("created",) if is_flat else ("added", "done")
        self._open: dict[int, _Item] = {}
        """Open items by utterance number."""
        self._last_item: str | None = None
        self._committed_until = 0.0
        """End of the last committed item, in seconds of the stream."""
        self._earlier_seconds = 0.0
        """Seconds of audio in earlier streams."""
        self._is_commit_answered = False
        """Whether an item was committed for the pending commit."""

    def render_event(self, event: Event, session: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        shared = session.common
        match event:
            case SpeechStarted(number, at):
                yield from self._start_item(number, at, shared)
            case Partial(number, stable, _, tokens, _):
                yield from self._append_text(self._item(number), stable, tokens, shared, tokenizer)
            case UtteranceEnded(number, at, reason):
                yield from self._end_item(self._item(number), at, reason == "asked", shared)
            case Final(number, text, words, language=language):
                item = self._item(number)
                self._open.pop(number)
                yield from self._append_text(item, text, (), shared, tokenizer, is_last=True)
                all_tokens = [token for word in words for token in word.tokens] if _wants_logprobs(shared) else None
                yield self._completed(item, text, all_tokens, language, tokenizer)
            case Failed():
                for item in self._open.values():
                    yield _event(item, "failed") | {"error": error_body(event)}

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        """Every commit yields an item; an empty one if the committed audio had no words."""
        if request.kind == "commit" and not self._is_commit_answered:
            item = _Item(self._ids.item(), self._committed_until)
            yield from self._commit(item, request.at)
            yield self._completed(item, "", None, None, None)
        self._is_commit_answered = False

    def render_end(self, seconds: float) -> Iterator[Message]:
        yield from ()
        self._earlier_seconds += seconds
        self._committed_until = 0.0
        self._open.clear()
        self._is_commit_answered = False

    def _item(self, number: int) -> _Item:
        if number not in self._open:
            self._open[number] = _Item(self._ids.item(), self._committed_until)
        return self._open[number]

    def _start_item(self, number: int, at: float, session: Session) -> Iterator[Message]:
        item = self._item(number)
        if session.input.turn_detection is None:
            return
        item.start = max(at - session.padding, self._committed_until)
        yield {
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": self._milliseconds(item.start),
            "item_id": item.id,
        }

    def _append_text(
        self,
        item: _Item,
        text: str,
        tokens: tuple[Token, ...],
        session: Session,
        tokenizer: Tokenizer,
        is_last: bool = False,
    ) -> Iterator[Message]:
        wants_logprobs = _wants_logprobs(session)
        if wants_logprobs:
            item.tokens += tokens
        if delta := item.text.append(text):
            logprobs = _logprobs(_take_complete_tokens(item, tokenizer, is_last), tokenizer) if wants_logprobs else None
            yield _event(item, "delta") | {"delta": delta, "logprobs": logprobs}

    def _end_item(self, item: _Item, at: float, is_requested: bool, session: Session) -> Iterator[Message]:
        if session.input.turn_detection is not None and not is_requested:
            yield {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": self._milliseconds(at),
                "item_id": item.id,
            }
        self._is_commit_answered = is_requested
        yield from self._commit(item, at)

    def _commit(self, item: _Item, at: float) -> Iterator[Message]:
        item.end = self._committed_until = max(at, item.start)
        previous, self._last_item = self._last_item, item.id
        yield {"type": "input_audio_buffer.committed", "item_id": item.id, "previous_item_id": previous}
        for name in self._added:
            yield {"type": f"conversation.item.{name}", "previous_item_id": previous, "item": _content(item)}

    def _completed(
        self, item: _Item, text: str, tokens: list[Token] | None, language: str | None, tokenizer: Tokenizer | None
    ) -> Message:
        event = _event(item, "completed") | {
            "transcript": text,
            "logprobs": _logprobs(tokens, tokenizer) if tokens is not None and tokenizer else None,
            "usage": {"type": "duration", "seconds": round(item.end - item.start, 3)},
        }
        return event | {"languages": [{"code": language}]} if language else event

    def _milliseconds(self, seconds: float) -> int:
        return round((self._earlier_seconds + seconds) * 1000)


def _wants_logprobs(session: Session) -> bool:
    return LOGPROBS in (session.include or ())


def _event(item: _Item, kind: str) -> Message:
    return {"type": f"{TRANSCRIPTION}.{kind}", "item_id": item.id, "content_index": 0}


def _content(item: _Item) -> dict[str, Any]:
    audio = {"type": "input_audio", "transcript": None}
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [audio],
    }


def _take_complete_tokens(item: _Item, tokenizer: Tokenizer, is_last: bool) -> list[Token]:
    """Takes the tokens of complete words; those of the last word stay, as it may still grow."""
    words = words_from_tokens(item.tokens, tokenizer)
    remaining = [] if is_last or not words else list(words[-1].tokens)
    complete = item.tokens[: len(item.tokens) - len(remaining)]
    item.tokens = remaining
    return complete


def _logprobs(tokens: list[Token], tokenizer: Tokenizer) -> list[Message] | None:
    """Returns None if the model gives no probabilities."""
    tokens_with_logprob = [
        token for token in tokens if token.log_probability is not None and not tokenizer.is_special(token.id)
    ]
    return [_logprob(token, tokenizer) for token in tokens_with_logprob] or None


def _logprob(token: Token, tokenizer: Tokenizer) -> Message:
    piece = tokenizer.pieces[token.id]
    data = b" " * piece.startswith("▁") + piece_bytes(piece)
    return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": token.log_probability}
