"""Events of one channel to `Results`, `SpeechStarted` and `UtteranceEnd`.

    |── final, of an utterance or silence ──|── final ──|── interim, replaced by the next ...
    0                                       └ each begins where the one before it ended

A final covers all audio since the one before it, words or not, to the end of the audio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conure.protocols.deepgram.words import alternative
from conure.service.events import Event, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word

__all__ = ["ResultOptions", "Results"]

LONGEST = 5.0
"""Seconds after which what is certain of an utterance is told as final, though it goes on; and silence is."""
STILL_OPEN = 1.0
"""Seconds before the present in which an utterance may yet turn out to have begun."""
WORDS_LATE = 1.0
"""Seconds by which words may be told later than that somebody speaks."""
DIGITS = 7
"""Of times: a sample at 16 kHz is 0.0000625 s."""

Message = dict[str, Any]


@dataclass(frozen=True)
class ResultOptions:
    """What a client asked to be told, and how."""

    written: bool = False
    """With marks and capitals."""
    interim: bool = False
    speech_starts: bool = False
    utterance_end: float | None = None
    """Seconds without a word after which `UtteranceEnd` is told."""
    ends_speech: bool = True
    """Whether a pause makes a final `speech_final`."""


class Results:
    """One channel's, in the order of its events."""

    def __init__(self, manner: ResultOptions, channel: Sequence[int], metadata: Message) -> None:
        """`channel`: its index and how many there are."""
        self._manner, self._channel, self._metadata = manner, list(channel), metadata
        self._until = 0.0
        """All before it was told as final."""
        self._told = 0
        """Words of the utterance that were told as final while it went on."""
        self._ended_at = 0.0
        self._held: tuple[Word, ...] = ()
        """Words of the final whose marker, or end of the stream, comes next."""
        self._is_speaking = False
        self._last_word: float | None = None
        """End of the last word, until `UtteranceEnd` was told for it."""
        self._waited_from: float | None = None
        """Where speech began of which no word is known yet. Until one is, or none came, no utterance is over."""

    def tell(self, event: Event) -> Iterator[Message]:
        match event:
            case SpeechStarted(at=at):
                yield from self._start(at)
            case Partial():
                yield from self._follow(event)
            case UtteranceEnded(at=at):
                self._ended_at, self._is_speaking = at, False
            case Final():
                yield from self._finish(event)
            case Marker(at=at):
                yield self._final(self._take_held(), at, speech_final=True, from_finalize=True)
            case Lag(processed_until=until):
                yield from self._pass(until)
            case Finished(seconds):
                yield from self._end(seconds)

    def flush(self) -> Iterator[Message]:
        """What was held back, where the stream ends otherwise."""
        if self._held:
            yield self._final(self._take_held(), self._ended_at, speech_final=True)

    def _start(self, at: float) -> Iterator[Message]:
        yield from self._miss_words(at)
        self._is_speaking, self._waited_from = True, at
        if self._manner.speech_starts:
            yield {"type": "SpeechStarted", "channel": self._channel, "timestamp": at}

    def _follow(self, partial: Partial) -> Iterator[Message]:
        stable, tail = partial.stable_words[self._told :], partial.tail_words
        yield from self._hear((*stable, *tail))
        if stable and partial.processed_until - self._until > LONGEST:
            yield self._final(stable, stable[-1].end or self._until, speech_final=False)
            self._told, stable = len(partial.stable_words), ()
        if self._manner.interim and (stable or tail):
            yield self._results((*stable, *tail), max(partial.processed_until, self._until))

    def _finish(self, final: Final) -> Iterator[Message]:
        words, self._told = final.words[self._told :], 0
        yield from self._hear(words)
        self._waited_from = None
        if final.reason in ("asked", "closed"):
            self._held = words
            return
        is_pause = final.reason != "length" and self._manner.ends_speech
        yield self._final(words, self._ended_at, speech_final=is_pause)

    def _pass(self, until: float) -> Iterator[Message]:
        """Time went by."""
        if not self._is_speaking and until - STILL_OPEN - self._until >= LONGEST:
            yield self._final((), until - STILL_OPEN, speech_final=False)
        yield from self._miss_words(until)

    def _end(self, seconds: float) -> Iterator[Message]:
        if self._held or seconds > self._until:
            yield self._final(self._take_held(), seconds, speech_final=True)
        yield from self._miss_words(seconds)

    def _hear(self, words: Sequence[Word]) -> Iterator[Message]:
        """Keeps the end of the last word; the gap before the first may have been long, unless speech began in it."""
        if not words:
            return
        if words[0].start is not None and self._waited_from is None:
            yield from self._miss_words(words[0].start)
        self._waited_from = None
        self._last_word = next((word.end for word in reversed(words) if word.end is not None), self._last_word)

    def _miss_words(self, until: float) -> Iterator[Message]:
        limit, last = self._manner.utterance_end, self._last_word
        if limit is None or last is None:
            return
        begin = last if self._waited_from is None else self._waited_from + WORDS_LATE
        if until - begin >= limit:
            self._last_word = None
            yield {"type": "UtteranceEnd", "channel": self._channel, "last_word_end": last}

    def _take_held(self) -> tuple[Word, ...]:
        held, self._held = self._held, ()
        return held

    def _final(self, words: Sequence[Word], end: float, *, speech_final: bool, from_finalize: bool = False) -> Message:
        end = max(end, self._until)
        results = self._results(words, end, is_final=True, speech_final=speech_final, from_finalize=from_finalize)
        self._until = end
        return results

    def _results(
        self,
        words: Sequence[Word],
        end: float,
        *,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Message:
        return {
            "type": "Results",
            "channel_index": self._channel,
            "start": round(self._until, DIGITS),
            "duration": round(end - self._until, DIGITS),
            "is_final": is_final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative(words, self._manner.written)]},
            "metadata": self._metadata,
        }
