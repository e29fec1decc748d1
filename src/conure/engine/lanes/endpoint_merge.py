"""Tokens and speech of one stream, as they come, to answers in the stream's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from conure.decoding.emitted_token import STEP_SECONDS
from conure.engine.lanes.vad_stream import Speech
from conure.engine.messages import Answer, SpeechStarted, StreamTokens, UtteranceEnded
from conure.types import Token
from conure.vad.endpointing import Endpointer, Endpointing, EndReason, SpeechBegan

__all__ = ["EndpointMerge"]


class EndpointMerge:
    """For models whose tokens come while the utterance goes on."""

    def __init__(self, number: int, endpointing: Endpointing, end_token: int | None = None) -> None:
        self.number = number
        self.end_token = end_token
        self._endpointer = Endpointer(endpointing)

    def configure(self, endpointing: Endpointing) -> None:
        self._endpointer.settings = endpointing

    def tell(self, tokens: Sequence[Token], speech: Sequence[Speech], reached: float) -> Iterator[Answer]:
        """Tokens and steps of the detector, merged by time, as the endpointer sees them."""
        pending = deque(tokens)
        said: list[Token] = []
        for start, end, probability in speech:
            while pending and pending[0].start + STEP_SECONDS <= end:
                yield from self._say(pending.popleft(), said)
            event = self._endpointer.add_step(start, end, probability)
            if event is None:
                continue
            if isinstance(event, SpeechBegan):
                yield SpeechStarted(self.number, event.at)
            else:
                yield StreamTokens(self.number, tuple(said), event.at)
                said.clear()
                yield UtteranceEnded(self.number, event.at, event.reason)
        while pending:
            yield from self._say(pending.popleft(), said)
        yield StreamTokens(self.number, tuple(said), reached)

    def skim(self, until: float, lowest: float, highest: float) -> bool:
        """Steps of the detector up to there, without tokens; False where they have to be told one by one."""
        return self._endpointer.add_steps(until, lowest, highest)

    def end(self, at: float, reason: EndReason) -> Iterator[Answer]:
        """Over, because of what the caller knows."""
        if ended := self._endpointer.end_speech(at, reason):
            yield UtteranceEnded(self.number, ended.at, ended.reason)

    def _say(self, token: Token, said: list[Token]) -> Iterator[Answer]:
        said.append(token)
        began = self._endpointer.add_token(token.start, token.end, token.id == self.end_token)
        if began:
            yield SpeechStarted(self.number, began.at)
