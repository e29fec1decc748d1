"""A final from a more accurate model than the partials, within a budget of time; else from theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.engine.messages import Samples
from conure.engine.plan import ModelInfo
from conure.errors import ConureError
from conure.service.events import Final
from conure.service.utterance import Utterance, make_final
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token

__all__ = ["SecondPass", "SecondPassOptions"]


@dataclass(frozen=True)
class SecondPassOptions:
    model: ModelInfo
    tokenizer: Tokenizer
    budget: float = 1.0
    """Seconds after the end of the utterance."""
    margin: float = 0.3
    """Seconds of audio before the utterance that are heard with it."""
    prompt: int | None = None


class SecondPass:
    """One utterance."""

    def __init__(
        self,
        handle: EngineClient,
        options: SecondPassOptions,
        samples: Samples,
        begin: float,
        utterance: Utterance,
        fast: Final,
    ) -> None:
        self.final: Final | None = None
        self._handle, self._options, self._samples = handle, options, samples
        self._begin, self._utterance, self._fast = begin, utterance, fast
        self._done: Callable[[], None] | None = None
        self._tokens: list[Token] = []
        self._number = handle.register(self)
        self._timer = asyncio.get_running_loop().call_later(options.budget, self._give_up)
        self._ask()

    def on_done(self, call: Callable[[], None]) -> None:
        self._done = call

    def answered(self, answer: engine.Answer) -> None:
        match answer:
            case engine.StreamTokens(_, tokens):
                self._tokens += [
                    replace(t, start=round(t.start + self._begin, 3), end=round(t.end + self._begin, 3)) for t in tokens
                ]
            case engine.Finished():
                self._finish(self._accurate())
            case engine.Failed() | engine.Cancelled():
                self._finish(self._fast)

    def restarted(self) -> None:
        self._tokens.clear()
        self._ask()

    def lost(self, error: ConureError) -> None:
        self._finish(self._fast)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._timer.cancel()
        if self.final is None:
            self._handle.ask(engine.Cancel(self._number))
            self._handle.forget(self._number)

    def _ask(self) -> None:
        options = self._options
        self._handle.ask(engine.Clip(self._number, options.model.name, self._samples, options.prompt, urgent=True))

    def _accurate(self) -> Final:
        words = words_from_tokens(self._tokens, self._options.tokenizer)
        fast = self._fast
        return make_final(self._utterance, words, fast.end, fast.reason, self._options.model.name, fast.language)

    def _give_up(self) -> None:
        self.cancel()
        self._finish(self._fast)

    def _finish(self, final: Final) -> None:
        if self.final is None:
            self._timer.cancel()
            self.final = final
            if self._done:
                self._done()
