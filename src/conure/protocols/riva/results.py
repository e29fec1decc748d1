"""Renders events as Riva results, and delays finals for the second pass.

one pass    partial, partial ... final
two passes  partial, partial ... partial with stability 1 ── silence until the second pass ──> final
                                                          ── more speech ──> partial that begins with it ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from conure.protocols.riva.options import Options
from conure.protocols.riva.riva_asr_pb2 import SpeechRecognitionAlternative, StreamingRecognitionResult, WordInfo
from conure.service.events import TERMINAL_EVENTS, Event, Final, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.text.lexical_form import lexical_form
from conure.text.words import join_words
from conure.types import Word

__all__ = ["Results", "alternative"]

START_DELAY = 0.1
"""Seconds by which the start of speech may be reported late."""
WORD_DELAY = 1.0
"""Seconds that detected speech has to become words."""
MAX_HELD_SECONDS = 30.0
"""Seconds of speech held for a second pass, at most."""


class Results:
    """Renders the events of one channel, numbered from 1."""

    def __init__(self, options: Options, channel: int = 1, language: str | None = None) -> None:
        """`language`: given if the model has a single language."""
        self._options = options
        self._channel = channel
        self._language = language
        self._held: list[Final] = []
        """Finals of the first pass; the speaker may continue."""
        self._due = self._ended = self._processed = 0.0
        """Due time of the held finals; end of the last utterance; processed audio. Seconds of the stream."""
        self._start_seconds = options.endpointing.begin_seconds + START_DELAY
        self._has_interim = self._has_final = False
        """Whether unfinalized text was sent; whether a final was sent since the last finalize request."""

    def render(self, event: Event) -> list[StreamingRecognitionResult]:
        match event:
            case SpeechStarted(_, at) if self._held:
                return self._extend_hold(at)
            case Partial(_, stable, tail, _, until):
                self._processed = max(self._processed, until)
                if self._held and (stable or tail):
                    self._due = math.inf  # the held finals are part of this utterance
                return self._interim(stable, tail)
            case UtteranceEnded(_, at):
                self._ended, self._processed = at, max(self._processed, at)
            case Final():
                return self._hold_final(event)
            case Lag(_, until):
                self._processed = max(self._processed, until)
                return self._release_held() if until >= self._due + self._start_seconds else []
            case Marker():
                return self._answer_finalize()
            case _ if isinstance(event, TERMINAL_EVENTS):
                return self._release_held()
        return []

    def _extend_hold(self, at: float) -> list[StreamingRecognitionResult]:
        if at > self._due:
            return self._release_held()
        self._due = max(self._due, at + WORD_DELAY)
        return []

    def _hold_final(self, final: Final) -> list[StreamingRecognitionResult]:
        self._has_final = self._has_final or final.reason == "asked"
        if self._held and not final.words and final.reason in ("silence", "blanks") and self._due < math.inf:
            return []  # it was noise
        self._held.append(final)
        may_continue = final.reason == "silence" and self._ended - self._held[0].start < MAX_HELD_SECONDS
        if not self._options.second_pass or not may_continue:
            return self._release_held()
        self._due = self._ended + self._options.second_pass
        return self._interim_result("", 1.0) if self._options.interim and self._held_text() else []

    def _answer_finalize(self) -> list[StreamingRecognitionResult]:
        """Answers a finalize request; sends an empty final if there was no speech."""
        results, has_final = self._release_held(), self._has_final
        self._has_final = False
        return results if has_final or results else [self._final(())]

    def _release_held(self) -> list[StreamingRecognitionResult]:
        held, self._held = self._held, []
        words = [word for final in held for word in final.words]
        is_due = bool(words) or self._has_interim or any(final.reason == "asked" for final in held)
        self._has_interim = False
        return [self._final(words, held[-1].language)] if held and is_due else []

    def _final(self, words: Sequence[Word], language: str | None = None) -> StreamingRecognitionResult:
        return StreamingRecognitionResult(
            alternatives=[alternative(join_words(words), words, language or self._language, self._options)],
            is_final=True,
            stability=1.0,
            channel_tag=self._channel,
            audio_processed=self._processed,
        )

    def _interim(self, stable: str, tail: str) -> list[StreamingRecognitionResult]:
        """The stability is the share of stable text."""
        if not self._options.interim or not (stable or tail).strip():
            return []
        stable_length = len(self._held_text()) + len(stable)
        return self._interim_result(stable + tail, round(min(stable_length / (stable_length + len(tail)), 0.99), 2))

    def _interim_result(self, new_text: str, stability: float) -> list[StreamingRecognitionResult]:
        self._has_interim = True
        text = " ".join(filter(None, (self._held_text(), new_text)))
        return [
            StreamingRecognitionResult(
                alternatives=[
                    SpeechRecognitionAlternative(transcript=text if self._options.punctuation else lexical_form(text))
                ],
                stability=stability,
                channel_tag=self._channel,
                audio_processed=self._processed,
            )
        ]

    def _held_text(self) -> str:
        return join_words(word for final in self._held for word in final.words)


def alternative(
    text: str, words: Iterable[Word], language: str | None, options: Options
) -> SpeechRecognitionAlternative:
    """Unknown values are left out: confidence 0, no language."""
    words = list(words)
    confidences = [word.confidence for word in words if word.confidence is not None]
    return SpeechRecognitionAlternative(
        transcript=text if options.punctuation else lexical_form(text),
        confidence=sum(confidences) / len(confidences) if confidences else 0.0,
        words=list(_words(words, options)) if options.with_words else (),
        language_code=[language] if language else (),
    )


def _words(words: Iterable[Word], options: Options) -> Iterable[WordInfo]:
    for word in words:
        text = word.text if options.punctuation else lexical_form(word.text)
        if text:
            yield WordInfo(
                word=text,
                start_time=_milliseconds(word.start),
                end_time=_milliseconds(word.end),
                confidence=word.confidence or 0.0,
            )


def _milliseconds(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1000)
