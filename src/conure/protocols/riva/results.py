"""Our events as Riva's results, and finals that wait for a second pass.

one pass    partial, partial ... final
two passes  partial, partial ... partial with stability 1 ── quiet for long enough ──> final
                                                          ── more is said ──> partial that begins with it ...
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

SLACK = 0.1
"""Seconds by which a beginning may be told late."""
PATIENCE = 1.0
"""Seconds for what may be speech to become words."""
LONGEST = 30.0
"""Seconds of speech that wait for a second pass."""


class Results:
    """Of one channel, numbered from 1."""

    def __init__(self, options: Options, channel: int = 1, language: str | None = None) -> None:
        """`language`: of all that is said, where the model has one alone."""
        self._options = options
        self._channel = channel
        self._language = language
        self._held: list[Final] = []
        """Of the first pass: the speaker may go on."""
        self._due = self._ended = self._processed = 0.0
        """When they are final; where the last utterance ended; and what was worked in. Seconds of the stream."""
        self._begins = options.endpointing.begin_seconds + SLACK
        self._is_shown = self._is_answered = False
        """The client has text of an utterance that is not final; it has a final since it last asked for one."""

    def render(self, event: Event) -> list[StreamingRecognitionResult]:
        match event:
            case SpeechStarted(_, at) if self._held:
                return self._go_on(at)
            case Partial(_, stable, tail, _, until):
                self._processed = max(self._processed, until)
                if self._held and (stable or tail):
                    self._due = math.inf  # what is held is part of it
                return self._interim(stable, tail)
            case UtteranceEnded(_, at):
                self._ended, self._processed = at, max(self._processed, at)
            case Final():
                return self._end(event)
            case Lag(_, until):
                self._processed = max(self._processed, until)
                return self._settle() if until >= self._due + self._begins else []
            case Marker():
                return self._answer()
            case _ if isinstance(event, TERMINAL_EVENTS):
                return self._settle()
        return []

    def _go_on(self, at: float) -> list[StreamingRecognitionResult]:
        if at > self._due:
            return self._settle()
        self._due = max(self._due, at + PATIENCE)
        return []

    def _end(self, final: Final) -> list[StreamingRecognitionResult]:
        self._is_answered = self._is_answered or final.reason == "asked"
        if self._held and not final.words and final.reason in ("silence", "blanks") and self._due < math.inf:
            return []  # it was noise
        self._held.append(final)
        goes_on = final.reason == "silence" and self._ended - self._held[0].start < LONGEST
        if not self._options.second_pass or not goes_on:
            return self._settle()
        self._due = self._ended + self._options.second_pass
        return self._told("", 1.0) if self._options.interim and self._text() else []

    def _answer(self) -> list[StreamingRecognitionResult]:
        """Who asks for a final gets one, though nothing was said."""
        settled, answered = self._settle(), self._is_answered
        self._is_answered = False
        return settled if answered or settled else [self._final(())]

    def _settle(self) -> list[StreamingRecognitionResult]:
        held, self._held = self._held, []
        words = [word for final in held for word in final.words]
        is_wanted = bool(words) or self._is_shown or any(final.reason == "asked" for final in held)
        self._is_shown = False
        return [self._final(words, held[-1].language)] if held and is_wanted else []

    def _final(self, words: Sequence[Word], language: str | None = None) -> StreamingRecognitionResult:
        return StreamingRecognitionResult(
            alternatives=[alternative(join_words(words), words, language or self._language, self._options)],
            is_final=True,
            stability=1.0,
            channel_tag=self._channel,
            audio_processed=self._processed,
        )

    def _interim(self, stable: str, tail: str) -> list[StreamingRecognitionResult]:
        """Its stability is the part of the text that will not change."""
        if not self._options.interim or not (stable or tail).strip():
            return []
        sure = len(self._text()) + len(stable)
        return self._told(stable + tail, round(min(sure / (sure + len(tail)), 0.99), 2))

    def _told(self, fresh: str, stability: float) -> list[StreamingRecognitionResult]:
        self._is_shown = True
        text = " ".join(filter(None, (self._text(), fresh)))
        return [
            StreamingRecognitionResult(
                alternatives=[
                    SpeechRecognitionAlternative(transcript=text if self._options.marks else lexical_form(text))
                ],
                stability=stability,
                channel_tag=self._channel,
                audio_processed=self._processed,
            )
        ]

    def _text(self) -> str:
        return join_words(word for final in self._held for word in final.words)


def alternative(
    text: str, words: Iterable[Word], language: str | None, options: Options
) -> SpeechRecognitionAlternative:
    """What is not known is left out: confidence 0, no language."""
    words = list(words)
    known = [word.confidence for word in words if word.confidence is not None]
    return SpeechRecognitionAlternative(
        transcript=text if options.marks else lexical_form(text),
        confidence=sum(known) / len(known) if known else 0.0,
        words=list(_words(words, options)) if options.words else (),
        language_code=[language] if language else (),
    )


def _words(words: Iterable[Word], options: Options) -> Iterable[WordInfo]:
    for word in words:
        text = word.text if options.marks else lexical_form(word.text)
        if text:
            yield WordInfo(
                word=text,
                start_time=_milliseconds(word.start),
                end_time=_milliseconds(word.end),
                confidence=word.confidence or 0.0,
            )


def _milliseconds(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1000)
