"""Merges the tokens and the speech probabilities of one stream into events, in the stream's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from conure.constants import ENCODER_FRAME_SECONDS
from conure.engine.lanes.vad_stream import Speech
from conure.engine.messages import SpeechStarted, StreamEvent, StreamTokens, UtteranceEnded
from conure.types import Token
from conure.vad.endpointing import Endpointer, Endpointing, EndReason, SpeechBegan

__all__ = ["EndpointMerge"]


class EndpointMerge:
    """For models that emit tokens while the utterance is in progress."""

    def __init__(self, number: int, endpointing: Endpointing, end_token: int | None = None) -> None:
        self.number = number
        self.end_token = end_token
        self._endpointer = Endpointer(endpointing)

    def configure(self, endpointing: Endpointing) -> None:
        self._endpointer.settings = endpointing

    def merge(self, tokens: Sequence[Token], speech: Sequence[Speech], processed: float) -> Iterator[StreamEvent]:
        """Passes tokens and detector steps to the endpointer by time. `processed`: seconds that are decoded."""
        pending = deque(tokens)
        utterance: list[Token] = []
        for start, end, probability in speech:
            while pending and pending[0].start + ENCODER_FRAME_SECONDS <= end:
                yield from self._add_token(pending.popleft(), utterance)
            event = self._endpointer.add_step(start, end, probability)
            if event is None:
                continue
            if isinstance(event, SpeechBegan):
                yield SpeechStarted(self.number, event.at)
            else:
                yield StreamTokens(self.number, tuple(utterance), event.at)
                utterance.clear()
                yield UtteranceEnded(self.number, event.at, event.reason)
        while pending:
            yield from self._add_token(pending.popleft(), utterance)
        yield StreamTokens(self.number, tuple(utterance), processed)

    def skip(self, until: float, lowest: float, highest: float) -> bool:
        """Skips detector steps up to a time without tokens; False when they must be merged one by one."""
        return self._endpointer.add_steps(until, lowest, highest)

    def end(self, at: float, reason: EndReason) -> Iterator[StreamEvent]:
        """Ends the utterance at a finalize or at the stream's end."""
        if ended := self._endpointer.end_speech(at, reason):
            yield UtteranceEnded(self.number, ended.at, ended.reason)

    def _add_token(self, token: Token, utterance: list[Token]) -> Iterator[StreamEvent]:
        utterance.append(token)
        began = self._endpointer.add_token(token.start, token.end, token.id == self.end_token)
        if began:
            yield SpeechStarted(self.number, began.at)
