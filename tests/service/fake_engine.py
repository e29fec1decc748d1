"""A fake engine client: records requests, and sends the answers that a test chooses."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np

from conure.engine import messages as engine
from conure.engine.client import Receiver
from conure.engine.messages import Request, StreamEvent
from conure.engine.plan import ModelInfo
from conure.text.tokenizer import LabelTokenizer
from conure.types import Token

__all__ = ["CLIPS", "LIVE", "TOKENIZER", "Engine", "audio", "tokens"]

TOKENIZER = LabelTokenizer([f"▁{letter}" for letter in "abcdefghij"] + list("klmnopqrst") + ["<EOU>"])
STEP = 0.08
LIVE = ModelInfo("live", "live", "", b"", 20, latencies=(80, 160), max_streams=4, capacity=(4, 4))
CLIPS = ModelInfo("clips", "clips", "", b"", 20, supports_clips=True)


class Engine:
    """As EngineHandle, whoever asks."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.receivers: dict[int, Receiver] = {}
        self.is_ready = True
        self.restarts = 0
        self.resumed_at = 0.0
        self.model_infos = (LIVE, CLIPS)
        self.models_by_name = {card.name: card for card in self.model_infos}
        self.on_step = None
        self._numbers = itertools.count(1)

    def register(self, receiver: Receiver) -> int:
        number = next(self._numbers)
        self.receivers[number] = receiver
        return number

    def unregister(self, number: int) -> None:
        self.receivers.pop(number, None)

    def send(self, request: Request) -> None:
        if self.is_ready:
            self.asked.append(request)
            if isinstance(request, engine.Open) and not request.is_replay:
                asyncio.get_running_loop().call_soon(self.say, engine.StreamOpened(request.stream))

    def say(self, *answers: StreamEvent) -> None:
        for answer in answers:
            if receiver := self.receivers.get(answer.stream):
                if isinstance(answer, engine.FINAL_EVENTS):
                    self.unregister(answer.stream)
                receiver.on_event(answer)

    def restart(self) -> None:
        """It has died, and is back."""
        self.asked.clear()
        for receiver in list(self.receivers.values()):
            receiver.on_restart()

    def samples(self) -> np.ndarray:
        """All that it was sent of the streams."""
        sent = [request.samples for request in self.asked if isinstance(request, engine.Audio)]
        return np.concatenate([np.empty(0, np.float32), *sent])

    def of(self, kind: type[Request]) -> list[Request]:
        return [request for request in self.asked if isinstance(request, kind)]


def audio(seconds: float, first: int = 0) -> np.ndarray:
    """Every sample is its place in the stream."""
    return np.arange(first, first + round(seconds * 16_000), dtype=np.float32)


def tokens(letters: str, at: float) -> tuple[Token, ...]:
    """A step for each letter: a to j begin words, a dot is the end of an utterance."""
    return tuple(
        Token("abcdefghijklmnopqrst.".index(letter), round(at + STEP * i, 3), round(at + STEP * (i + 1), 3))
        for i, letter in enumerate(letters)
    )
