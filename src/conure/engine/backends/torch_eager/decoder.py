"""Decoding loops in torch. They synchronise after each token to check whether any row has more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conure.decoding.ctc import decode_ctc
from conure.decoding.transducer import TransducerState, decode_transducer
from conure.engine.backends.decoder import Tokens
from conure.models.network import Heads
from conure.models.preemptible import Preemptible

__all__ = ["SLICE_STEPS", "TorchDecoder", "TorchDecoderState"]

SLICE_STEPS = 64
"""Encoder steps (5 s) of one slice."""


@dataclass(frozen=True)
class TorchDecoderState:
    """Transducer state of streams by slot."""

    state: TransducerState
    initial: TransducerState
    """One row: the state of a new stream."""

    @property
    def bytes(self) -> int:
        return self.state.bytes

    def reset(self, rows: np.ndarray) -> None:
        self.state.scatter(self.indices(rows), self.initial.repeat(len(rows)))

    def indices(self, rows: np.ndarray) -> Tensor:
        return torch.as_tensor(rows, device=self.state.decoded.device)


class TorchDecoder:
    """Decodes by the transducer if the network has one, else by CTC (clips only). Encoded steps may be arrays."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads

    @torch.inference_mode()
    def decode(self, encoded: Any, counts: Any) -> Preemptible[Tokens]:
        encoded, counts = torch.as_tensor(encoded), torch.as_tensor(counts)
        if not self.heads.config.predictor_width:
            return list(decode_ctc(self.heads, encoded, counts)[0])
        tokens: Tokens = [[] for _ in counts]
        state = None
        for begin in range(0, encoded.shape[1], SLICE_STEPS):
            yield
            part = encoded[:, begin : begin + SLICE_STEPS]
            found, state = decode_transducer(self.heads, part, (counts - begin).clamp(0, part.shape[1]), state)
            for row, emitted in zip(tokens, found, strict=True):
                row += emitted
        return tokens

    def allocate(self, rows: int) -> TorchDecoderState:
        initial = TransducerState.start(self.heads, 1)
        return TorchDecoderState(initial.repeat(rows), initial)

    @torch.inference_mode()
    def decode_chunk(
        self, encoded: Any, counts: Any, state: TorchDecoderState, rows: np.ndarray, flush: np.ndarray | None = None
    ) -> Tokens:
        indices, counts = state.indices(rows), torch.as_tensor(counts)
        before = state.state.gather(indices)
        found, after = decode_transducer(self.heads, torch.as_tensor(encoded), counts, before)
        if flush is not None:
            after = after.reset_where(state.indices(flush), before)
        state.state.scatter(indices, after)
        return list(found)
