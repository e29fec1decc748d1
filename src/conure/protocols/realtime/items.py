"""Utterances as items of a conversation: what a stream tells, in the order in which clients expect it.

    speech_started ── delta ── delta ── speech_stopped ── committed ── item.added ── item.done ── delta ── completed

Deltas only ever add words that will not change. The last of them brings what is missing of the transcript; where the
transcript turned out to be another one than they said, it comes alone: `completed` has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from conure.protocols.openai.logprobs import piece_bytes
from conure.protocols.realtime.messages import IdSource, Message, error_body
from conure.protocols.realtime.session import LOGPROBS, Session, SessionFields
from conure.protocols.realtime.streams import FinalizeRequest
from conure.service.events import Event, Failed, Final, Partial, SpeechStarted, UtteranceEnded
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token

__all__ = ["TRANSCRIPTION", "Deltas", "Items", "EventRenderer"]

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class EventRenderer(Protocol):
    """How a dialect tells what a stream tells. Of one connection, through all of its streams."""

    def render_event(self, event: Event, asked: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]: ...

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        """All that was said before it has been told."""
        ...

    def render_end(self, seconds: float) -> Iterator[Message]:
        """The stream has ended after so much audio; what had not ended in it never will."""
        ...


class Deltas:
    """What a client was told of one text. What was said cannot be taken back."""

    def __init__(self) -> None:
        self.told = ""

    def fresh(self, text: str) -> str:
        """What it adds; nothing where it is another text by now."""
        if not text.startswith(self.told):
            return ""
        fresh, self.told = text.removeprefix(self.told), text
        return fresh


@dataclass
class _Item:
    id: str
    start: float
    """Of its audio, in seconds of the stream."""
    end: float = 0.0
    deltas: Deltas = field(default_factory=Deltas)
    tokens: list[Token] = field(default_factory=list)
    """Heard and not told, where their probabilities are wanted."""


class Items:
    def __init__(self, numbers: IdSource, is_flat: bool) -> None:
        self._numbers = numbers
        self._added = ("created",) if is_flat else ("added", "done")
        self._open: dict[int, _Item] = {}
        """By their utterances."""
        self._last: str | None = None
        self._taken = 0.0
        """Seconds of the stream that belong to items."""
        self._before = 0.0
        """Seconds of audio in streams that are over."""
        self._is_answered = False
        """What was committed last has become an item."""

    def render_event(self, event: Event, asked: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        session = asked.common
        match event:
            case SpeechStarted(number, at):
                yield from self._begin(number, at, session)
            case Partial(number, stable, _, tokens, _):
                yield from self._add(self._item(number), stable, tokens, session, tokenizer)
            case UtteranceEnded(number, at, reason):
                yield from self._end(self._item(number), at, reason == "asked", session)
            case Final(number, text, words, language=language):
                item = self._item(number)
                self._open.pop(number)
                yield from self._add(item, text, (), session, tokenizer, is_last=True)
                heard = [token for word in words for token in word.tokens] if _wants(session) else None
                yield self._completed(item, text, heard, language, tokenizer)
            case Failed():
                for item in self._open.values():
                    yield _of(item, "failed") | {"error": error_body(event)}

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        """What the client has committed is an item; one without words, where it has become none yet."""
        if request.kind == "commit" and not self._is_answered:
            item = _Item(self._numbers.item(), self._taken)
            yield from self._commit(item, request.at)
            yield self._completed(item, "", None, None, None)
        self._is_answered = False

    def render_end(self, seconds: float) -> Iterator[Message]:
        yield from ()
        self._before += seconds
        self._taken = 0.0
        self._open.clear()
        self._is_answered = False

    def _item(self, number: int) -> _Item:
        if number not in self._open:
            self._open[number] = _Item(self._numbers.item(), self._taken)
        return self._open[number]

    def _begin(self, number: int, at: float, session: Session) -> Iterator[Message]:
        item = self._item(number)
        if session.input.turn_detection is None:
            return
        item.start = max(at - session.padding, self._taken)
        yield {
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": self._milliseconds(item.start),
            "item_id": item.id,
        }

    def _add(
        self,
        item: _Item,
        text: str,
        tokens: tuple[Token, ...],
        session: Session,
        tokenizer: Tokenizer,
        is_last: bool = False,
    ) -> Iterator[Message]:
        wants = _wants(session)
        if wants:
            item.tokens += tokens
        if fresh := item.deltas.fresh(text):
            probabilities = _probabilities(_settled(item, tokenizer, is_last), tokenizer) if wants else None
            yield _of(item, "delta") | {"delta": fresh, "logprobs": probabilities}

    def _end(self, item: _Item, at: float, is_asked: bool, session: Session) -> Iterator[Message]:
        if session.input.turn_detection is not None and not is_asked:
            yield {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": self._milliseconds(at),
                "item_id": item.id,
            }
        self._is_answered = is_asked
        yield from self._commit(item, at)

    def _commit(self, item: _Item, at: float) -> Iterator[Message]:
        item.end = self._taken = max(at, item.start)
        before, self._last = self._last, item.id
        yield {"type": "input_audio_buffer.committed", "item_id": item.id, "previous_item_id": before}
        for name in self._added:
            yield {"type": f"conversation.item.{name}", "previous_item_id": before, "item": _content(item)}

    def _completed(
        self, item: _Item, text: str, tokens: list[Token] | None, language: str | None, tokenizer: Tokenizer | None
    ) -> Message:
        told = _of(item, "completed") | {
            "transcript": text,
            "logprobs": _probabilities(tokens, tokenizer) if tokens is not None and tokenizer else None,
            "usage": {"type": "duration", "seconds": round(item.end - item.start, 3)},
        }
        return told | {"languages": [{"code": language}]} if language else told

    def _milliseconds(self, seconds: float) -> int:
        return round((self._before + seconds) * 1000)


def _wants(session: Session) -> bool:
    return LOGPROBS in (session.include or ())


def _of(item: _Item, what: str) -> Message:
    return {"type": f"{TRANSCRIPTION}.{what}", "item_id": item.id, "content_index": 0}


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


def _settled(item: _Item, tokenizer: Tokenizer, is_last: bool) -> list[Token]:
    """The tokens of words that are told now: all but those of the last word, which may still grow."""
    words = words_from_tokens(item.tokens, tokenizer)
    kept = [] if is_last or not words else list(words[-1].tokens)
    settled = item.tokens[: len(item.tokens) - len(kept)]
    item.tokens = kept
    return settled


def _probabilities(tokens: list[Token], tokenizer: Tokenizer) -> list[Message] | None:
    """None where the model tells none."""
    known = [token for token in tokens if token.log_probability is not None and not tokenizer.is_special(token.id)]
    return [_probability(token, tokenizer) for token in known] or None


def _probability(token: Token, tokenizer: Tokenizer) -> Message:
    piece = tokenizer.pieces[token.id]
    data = b" " * piece.startswith("▁") + piece_bytes(piece)
    return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": token.log_probability}
