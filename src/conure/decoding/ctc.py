"""Greedy decoding of CTC heads, batched and resumable.

Source: Graves et al., "Connectionist Temporal Classification" (2006): the best label of every step,
repeats merged, blanks dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from conure.decoding.confidence import confidence
from conure.decoding.token_buffer import TokenBuffer
from conure.models.network import Heads

__all__ = ["CtcState", "decode_ctc"]


@dataclass(frozen=True)
class CtcState:
    last: Tensor
    """Label of the last step, [B]: a run that continues in the next chunk is not a new token."""
    decoded: Tensor
    """Steps decoded so far, [B]."""

    @staticmethod
    def start(heads: Heads, rows: int) -> CtcState:
        zeros = torch.zeros(rows, dtype=torch.long, device=heads.device)
        return CtcState(zeros + heads.config.blank, zeros)


@torch.inference_mode()
def decode_ctc(
    heads: Heads, encoded: Tensor, counts: Tensor, state: CtcState | None = None
) -> tuple[TokenBuffer, CtcState]:
    """encoded [B, S, D], counts [B] -> tokens of this chunk and the state after it.

    A token's confidence is the minimum of its run, as in NeMo; its probability is that of its first step.
    """
    if heads.ctc_head is None:
        raise ValueError("this network has no CTC head")
    rows, size = encoded.shape[:2]
    state = state or CtcState.start(heads, rows)
    log_probs = heads.ctc_head(encoded).float().log_softmax(-1)
    best_log_probs, best = log_probs.max(-1)
    valid = torch.arange(size, device=encoded.device) < counts[:, None]
    labelled = valid & (best != heads.config.blank)
    before = torch.cat([state.last[:, None], best[:, :-1]], 1)
    starts = labelled & (best != before)
    tokens = TokenBuffer.allocate(rows, size, encoded.device)
    # Every step with a label belongs to the last started token; a run continued from the last chunk to none.
    column = starts.cumsum(1) - 1
    column = torch.where(labelled & (column >= 0), column, size)
    first = torch.where(starts, column, size)
    step = torch.arange(size, device=encoded.device) + state.decoded[:, None]
    tokens.ids.scatter_(1, first, best)
    tokens.steps.scatter_(1, first, step)
    tokens.log_probabilities.scatter_(1, first, best_log_probs)
    tokens.durations.scatter_add_(1, column, torch.ones_like(column))
    tokens.confidences.fill_(1.0).scatter_reduce_(1, column, confidence(log_probs), "amin")
    tokens.counts.copy_(starts.sum(1))
    last = F.pad(best, (1, 0)).gather(1, counts[:, None])[:, 0]
    last = torch.where(counts > 0, last, state.last)
    return tokens, CtcState(last, state.decoded + counts)
