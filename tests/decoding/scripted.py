"""Heads with scripted scores, and textbook decoders in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from conure.decoding.emitted_token import ALPHA, EmittedToken

__all__ = ["HISTORIES", "Scripted", "log_probability_and_confidence"]

HISTORIES = 7
"""States of the prediction network."""


@dataclass
class Scripted:
    """Logits of tokens, blank and durations [J]: the sum of a step's scores and of the history's [HISTORIES, J]."""

    vocabulary: int
    durations: tuple[int, ...]
    max_symbols: int
    by_history: Tensor

    device = torch.device("cpu")
    joint = predictor = None

    @property
    def config(self) -> SimpleNamespace:
        rules = {"durations": self.durations, "max_symbols": self.max_symbols}
        return SimpleNamespace(blank=self.vocabulary, vocabulary=self.vocabulary, **rules)

    def ctc_head(self, encoded: Tensor) -> Tensor:
        return encoded

    def project(self, encoded: Tensor) -> Tensor:
        return encoded

    def start(self, rows: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        zeros = torch.zeros(1, rows, 1)
        return self.advance(torch.full((rows,), self.vocabulary), (zeros, zeros.clone()))

    def advance(self, tokens: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The history depends on the order and the number of all tokens."""
        hidden = (3 * memory[0] + tokens[None, :, None] + 1) % HISTORIES
        return self.by_history[hidden[0, :, 0].long()], (hidden, memory[1] + 1)

    def score(self, steps: Tensor, predicted: Tensor) -> Tensor:
        return steps + predicted[:, None]

    def textbook_transducer(self, steps: Sequence[Sequence[float]]) -> list[EmittedToken]:
        """One row, one symbol at a time."""
        history, time, repeats = (self.vocabulary + 1) % HISTORIES, 0, 0
        found: list[EmittedToken] = []
        while time < len(steps):
            logits = [said + told for said, told in zip(steps[time], self.by_history[history].tolist(), strict=True)]
            symbols, lasting = logits[: self.vocabulary + 1], logits[self.vocabulary + 1 :]
            symbol = symbols.index(max(symbols))
            jump = self.durations[lasting.index(max(lasting))] if self.durations else int(symbol == self.vocabulary)
            if symbol == self.vocabulary:
                time, repeats = time + max(jump, 1), 0
                continue
            found.append(
                EmittedToken(symbol, time, jump if self.durations else 1, *log_probability_and_confidence(symbols))
            )
            history = (3 * history + symbol + 1) % HISTORIES
            repeats = 0 if jump else repeats + 1
            if repeats == self.max_symbols:
                jump, repeats = 1, 0
            time += jump
        return found

    def textbook_ctc(self, steps: Sequence[Sequence[float]]) -> list[EmittedToken]:
        """One row: runs of one label are one token, with the minimum of their confidence."""
        found: list[EmittedToken] = []
        last = self.vocabulary
        for step, logits in enumerate(steps):
            label, (log_probability, sure) = (
                max(range(len(logits)), key=logits.__getitem__),
                log_probability_and_confidence(logits),
            )
            if label == last != self.vocabulary:
                run = found.pop()
                lasted, least = run.duration + 1, min(run.confidence, sure)
                found.append(EmittedToken(label, run.step, lasted, run.log_probability, least))
            elif label != self.vocabulary:
                found.append(EmittedToken(label, step, 1, log_probability, sure))
            last = label
        return found


def log_probability_and_confidence(logits: Sequence[float]) -> tuple[float, float]:
    """Log-probability of the best token, and 1 - H / Hmax with Tsallis' entropy (1 - sum p^a) / (a - 1)."""
    most = max(logits)
    total = sum(math.exp(value - most) for value in logits)
    entropy = (1 - sum((math.exp(value - most) / total) ** ALPHA for value in logits)) / (ALPHA - 1)
    largest = (1 - len(logits) * (1 / len(logits)) ** ALPHA) / (ALPHA - 1)
    return -math.log(total), 1 - entropy / largest
