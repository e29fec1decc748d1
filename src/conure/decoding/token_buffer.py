"""Preallocated tensors for emitted tokens, one row per clip or stream.

A decoder appends under a mask and never reads the number of tokens, so its loop does not synchronise with the device
between symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from conure.decoding.emitted_token import EmittedToken
from conure.fused.label_step import TokenColumns, append_tokens

__all__ = ["TokenBuffer"]


@dataclass(frozen=True)
class TokenBuffer:
    """Tensors [B, U + 1]; the last column is scratch for rows that do not append. `counts` is [B]."""

    ids: Tensor
    steps: Tensor
    durations: Tensor
    log_probabilities: Tensor
    confidences: Tensor
    counts: Tensor

    @staticmethod
    def allocate(rows: int, capacity: int, device: torch.device) -> TokenBuffer:
        def integers() -> Tensor:
            return torch.zeros(rows, capacity + 1, dtype=torch.long, device=device)

        def floats() -> Tensor:
            return torch.zeros(rows, capacity + 1, device=device)

        return TokenBuffer(integers(), integers(), integers(), floats(), floats(), torch.zeros_like(integers()[:, 0]))

    @property
    def columns(self) -> TokenColumns:
        return self.ids, self.steps, self.durations, self.log_probabilities, self.confidences, self.counts

    def append(
        self, mask: Tensor, ids: Tensor, steps: Tensor, durations: Tensor, log_probs: Tensor, confidences: Tensor
    ) -> None:
        """Appends one token to every row where `mask` [B] is true."""
        append_tokens(self.columns, mask, (ids, steps, durations, log_probs, confidences))

    def row(self, index: int) -> list[EmittedToken]:
        return next(iter(self.rows(index, index + 1)))

    def rows(self, begin: int, end: int) -> Iterator[list[EmittedToken]]:
        """The tokens of the rows [begin, end), copied from the device together."""
        counts = self.counts[begin:end].tolist()
        max_count = max(counts, default=0)
        values = [column[begin:end, :max_count].tolist() for column in self.columns[:-1]]
        for count, *row in zip(counts, *values, strict=True):
            yield [EmittedToken(*value) for value in zip(*(column[:count] for column in row), strict=True)]

    def __iter__(self) -> Iterator[list[EmittedToken]]:
        return self.rows(0, len(self))

    def __len__(self) -> int:
        return self.counts.shape[0]
