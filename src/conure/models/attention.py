"""Self-attention with relative positions: over a whole clip, over a local window, over a cached past.

Scores are (q + u)·k + (q + v)·p(distance), where p is a projection of sinusoids and u, v are learned per
head. They depend on distances, not on positions, so the projected sinusoids are computed once per shape
and passed in. Source: Dai et al., "Transformer-XL" (2019), as NeMo's RelPositionMultiHeadAttention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from conure.fused.clip_attention import attend_relative
from conure.models.config import EncoderConfig
from conure.models.global_attention import Projection, attend_with_global_steps
from conure.models.local_attention import attend_locally

__all__ = ["Attention", "sinusoids"]


def sinusoids(first: int, last: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids of the distances first, first - 1, ..., last: [first - last + 1, width]."""
    distance = torch.arange(first, last - 1, -1.0, device=like.device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2.0, device=like.device) * (-math.log(10_000.0) / width))
    angle = distance * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(like.dtype)


class Attention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.head_width = config.heads, width // config.heads
        self.dropout = config.dropout
        self.global_steps = config.global_steps
        self.linear_q = nn.Linear(width, width, bias=config.bias)
        self.linear_k = nn.Linear(width, width, bias=config.bias)
        self.linear_v = nn.Linear(width, width, bias=config.bias)
        self.linear_out = nn.Linear(width, width, bias=config.bias)
        self.global_q = nn.Linear(width, width, bias=config.bias) if config.global_separate else None
        self.global_k = nn.Linear(width, width, bias=config.bias) if config.global_separate else None
        self.global_v = nn.Linear(width, width, bias=config.bias) if config.global_separate else None
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.heads, self.head_width))

    def positions(self, encoding: Tensor) -> Tensor:
        """Sinusoids [P, D] -> their projection by head [h, P, D / h]."""
        return self._by_head(self.linear_pos(encoding)[None])[0]

    def forward(self, x: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """Whole clips: x [B, T, D], positions of distances T - 1 .. 1 - T, keep as in `attend_relative`."""
        query, key, value = self.project(x)
        return self.attend(query, key, value, positions, keep)

    def local(self, x: Tensor, positions: Tensor, valid: Tensor, window: int) -> Tensor:
        """Each step sees `window` steps to either side, and global steps; shapes as in `attend_locally`."""
        projected = Projection(*self.project(x))
        u, v = self.pos_bias_u, self.pos_bias_v
        if places := self.global_steps(x.shape[1]):
            global_projection = self._global_projection(x, projected)
            mixed = attend_with_global_steps(projected, global_projection, positions, u, v, valid, window, places)
        else:
            mixed = attend_locally(*projected, positions, u, v, valid, window)
        out: Tensor = self.linear_out(mixed)
        return out

    def _global_projection(self, x: Tensor, projected: Projection) -> Projection:
        """Queries, keys and values of global attention: separate projections if the checkpoint has them."""
        if self.global_q is None or self.global_k is None or self.global_v is None:
            return projected
        return Projection(*(self._by_head(part(x)) for part in (self.global_q, self.global_k, self.global_v)))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> queries, keys and values by head, each [B, h, T, D / h]."""
        return self._by_head(self.linear_q(x)), self._by_head(self.linear_k(x)), self._by_head(self.linear_v(x))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """`attend_relative` followed by the output projection."""
        drop = self.dropout if self.training else 0.0
        mixed = attend_relative(query, key, value, positions, self.pos_bias_u, self.pos_bias_v, keep, drop)
        out: Tensor = self.linear_out(mixed)
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)
