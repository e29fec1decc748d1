"""Converts events of one channel to `Results`, `SpeechStarted` and `UtteranceEnd` messages.

    |── final (utterance or silence) ──|── final ──|── interim, replaced by the next ...
    0                                  └ each begins where the previous final ended

Finals tile the audio: each covers everything since the previous one, with or without words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conure.protocols.deepgram.words import alternative
from conure.service.events import Event, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word

__all__ = ["ResultOptions", "Results"]

MAX_UNFINALIZED_SECONDS = 5.0
"""Seconds after which the stable words of an utterance in progress, or silence, are sent as a final."""
DETECTION_DELAY = 1.0
"""Seconds before the current position in which speech may still be detected later."""
WORD_DELAY = 1.0
"""Seconds by which words may come later than the start of speech."""
TIME_DIGITS = 7
"""Decimal places of times: a sample at 16 kHz is 0.0000625 s."""

Message = dict[str, Any]


@dataclass(frozen=True)
class ResultOptions:
    """Which messages a client requested, and their format."""

    written: bool = False
    """With punctuation and capitals."""
    interim: bool = False
    speech_starts: bool = False
    utterance_end: float | None = None
    """Seconds without a word after which `UtteranceEnd` is sent."""
    ends_speech: bool = True
    """Whether a final after a pause is `speech_final`."""


class Results:
    """Renders the events of one channel, in order."""

    def __init__(self, options: ResultOptions, channel: Sequence[int], metadata: Message) -> None:
        """`channel`: index and number of channels."""
        self._options, self._channel, self._metadata = options, list(channel), metadata
        self._finalized_until = 0.0
        """End of the last final, in seconds."""
        self._finalized_words = 0
        """Words of the current utterance that were already sent in finals."""
        self._ended_at = 0.0
        self._held: tuple[Word, ...] = ()
        """Words of a final that waits for its marker or the end of the stream."""
        self._is_speaking = False
        self._last_word_end: float | None = None
        """End of the last word; None after its `UtteranceEnd`."""
        self._speech_from: float | None = None
        """Start of speech without words so far; it holds `UtteranceEnd` back until words come or the wait is over."""

    def render_event(self, event: Event) -> Iterator[Message]:
        match event:
            case SpeechStarted(at=at):
                yield from self._start_speech(at)
            case Partial():
                yield from self._render_partial(event)
            case UtteranceEnded(at=at):
                self._ended_at, self._is_speaking = at, False
            case Final():
                yield from self._render_final(event)
            case Marker(at=at):
                yield self._final_message(self._take_held(), at, speech_final=True, from_finalize=True)
            case Lag(processed_until=until):
                yield from self._advance(until)
            case Finished(seconds):
                yield from self._finish(seconds)

    def flush(self) -> Iterator[Message]:
        """Sends the held words when the stream ends without `Finished`."""
        if self._held:
            yield self._final_message(self._take_held(), self._ended_at, speech_final=True)

    def _start_speech(self, at: float) -> Iterator[Message]:
        yield from self._check_utterance_end(at)
        self._is_speaking, self._speech_from = True, at
        if self._options.speech_starts:
            yield {"type": "SpeechStarted", "channel": self._channel, "timestamp": at}

    def _render_partial(self, partial: Partial) -> Iterator[Message]:
        stable, tail = partial.stable_words[self._finalized_words :], partial.tail_words
        yield from self._record_words((*stable, *tail))
        if stable and partial.processed_until - self._finalized_until > MAX_UNFINALIZED_SECONDS:
            yield self._final_message(stable, stable[-1].end or self._finalized_until, speech_final=False)
            self._finalized_words, stable = len(partial.stable_words), ()
        if self._options.interim and (stable or tail):
            yield self._results_message((*stable, *tail), max(partial.processed_until, self._finalized_until))

    def _render_final(self, final: Final) -> Iterator[Message]:
        words, self._finalized_words = final.words[self._finalized_words :], 0
        yield from self._record_words(words)
        self._speech_from = None
        if final.reason in ("asked", "closed"):
            self._held = words
            return
        is_pause = final.reason != "length" and self._options.ends_speech
        yield self._final_message(words, self._ended_at, speech_final=is_pause)

    def _advance(self, until: float) -> Iterator[Message]:
        """Sends a final for silence and checks for `UtteranceEnd`."""
        if not self._is_speaking and until - DETECTION_DELAY - self._finalized_until >= MAX_UNFINALIZED_SECONDS:
            yield self._final_message((), until - DETECTION_DELAY, speech_final=False)
        yield from self._check_utterance_end(until)

    def _finish(self, seconds: float) -> Iterator[Message]:
        if self._held or seconds > self._finalized_until:
            yield self._final_message(self._take_held(), seconds, speech_final=True)
        yield from self._check_utterance_end(seconds)

    def _record_words(self, words: Sequence[Word]) -> Iterator[Message]:
        """Records the end of the last word; first checks the gap before these words unless speech began in it."""
        if not words:
            return
        if words[0].start is not None and self._speech_from is None:
            yield from self._check_utterance_end(words[0].start)
        self._speech_from = None
        self._last_word_end = next((word.end for word in reversed(words) if word.end is not None), self._last_word_end)

    def _check_utterance_end(self, until: float) -> Iterator[Message]:
        limit, last = self._options.utterance_end, self._last_word_end
        if limit is None or last is None:
            return
        begin = last if self._speech_from is None else self._speech_from + WORD_DELAY
        if until - begin >= limit:
            self._last_word_end = None
            yield {"type": "UtteranceEnd", "channel": self._channel, "last_word_end": last}

    def _take_held(self) -> tuple[Word, ...]:
        held, self._held = self._held, ()
        return held

    def _final_message(
        self, words: Sequence[Word], end: float, *, speech_final: bool, from_finalize: bool = False
    ) -> Message:
        end = max(end, self._finalized_until)
        results = self._results_message(
            words, end, is_final=True, speech_final=speech_final, from_finalize=from_finalize
        )
        self._finalized_until = end
        return results

    def _results_message(
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
            "start": round(self._finalized_until, TIME_DIGITS),
            "duration": round(end - self._finalized_until, TIME_DIGITS),
            "is_final": is_final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative(words, self._options.written)]},
            "metadata": self._metadata,
        }
