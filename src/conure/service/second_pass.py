"""Finals from a more accurate model than that of the partials, within a time budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from conure.engine import messages
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
    """Seconds of audio before the utterance that are transcribed with it."""
    prompt: int | None = None


class SecondPass:
    """Second pass of one utterance. If it fails or exceeds the budget, the fast final is used."""

    def __init__(
        self,
        engine: EngineClient,
        options: SecondPassOptions,
        samples: Samples,
        begin: float,
        utterance: Utterance,
        fast: Final,
    ) -> None:
        self.final: Final | None = None
        self._engine, self._options, self._samples = engine, options, samples
        self._begin, self._utterance, self._fast = begin, utterance, fast
        self._callback: Callable[[], None] | None = None
        self._tokens: list[Token] = []
        self._number = engine.register(self)
        self._timer = asyncio.get_running_loop().call_later(options.budget, self._use_fast_final)
        self._request()

    def on_done(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def on_event(self, answer: messages.StreamEvent) -> None:
        match answer:
            case messages.StreamTokens(_, tokens):
                self._tokens += [
                    replace(t, start=round(t.start + self._begin, 3), end=round(t.end + self._begin, 3)) for t in tokens
                ]
            case messages.Finished():
                self._finish(self._accurate_final())
            case messages.Failed() | messages.Cancelled():
                self._finish(self._fast)

    def on_restart(self) -> None:
        self._tokens.clear()
        self._request()

    def on_failure(self, error: ConureError) -> None:
        self._finish(self._fast)

    def cancel(self) -> None:
        """Cancels the request to the engine."""
        self._timer.cancel()
        if self.final is None:
            self._engine.send(messages.Cancel(self._number))
            self._engine.unregister(self._number)

    def _request(self) -> None:
        options = self._options
        self._engine.send(
            messages.Clip(self._number, options.model.name, self._samples, options.prompt, high_priority=True)
        )

    def _accurate_final(self) -> Final:
        words = words_from_tokens(self._tokens, self._options.tokenizer)
        fast = self._fast
        return make_final(self._utterance, words, fast.end, fast.reason, self._options.model.name, fast.language)

    def _use_fast_final(self) -> None:
        self.cancel()
        self._finish(self._fast)

    def _finish(self, final: Final) -> None:
        if self.final is None:
            self._timer.cancel()
            self.final = final
            if self._callback:
                self._callback()
