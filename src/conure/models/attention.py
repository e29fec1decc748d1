"""Self-attention with relative positions: over a whole clip, over a local window, over a cached past.

Scores are (q + u)·k + (q + v)·p(distance), where p is a projection of sinusoids and u, v are learned per
head. Distances, not positions, enter, so what depends on them alone is computed once per shape and
handed in. Source: Dai et al., "Transformer-XL" (2019), as NeMo's RelPositionMultiHeadAttention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.fused.clip_attention import attend_relative
from conure.models.config import EncoderConfig

__all__ = ["Attention", "attend_locally", "sinusoids"]


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
        self.linear_q = nn.Linear(width, width, bias=config.bias)
        self.linear_k = nn.Linear(width, width, bias=config.bias)
        self.linear_v = nn.Linear(width, width, bias=config.bias)
        self.linear_out = nn.Linear(width, width, bias=config.bias)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.heads, self.head_width))

    def positions(self, encoding: Tensor) -> Tensor:
        """Sinusoids [P, D] -> their projection by head [h, P, D / h]."""
        return self._by_head(self.linear_pos(encoding)[None])[0]

    def forward(self, x: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """Whole clips: x [B, T, D], positions of distances T - 1 .. 1 - T, keep as `attend_relative` has it."""
        query, key, value = self.project(x)
        return self.attend(query, key, value, positions, keep)

    def local(self, x: Tensor, positions: Tensor, valid: Tensor, window: int) -> Tensor:
        """Each step sees `window` steps to either side; shapes as `attend_locally` has them."""
        query, key, value = self.project(x)
        mixed = attend_locally(query, key, value, positions, self.pos_bias_u, self.pos_bias_v, valid, window)
        out: Tensor = self.linear_out(mixed)
        return out

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> queries, keys and values by head, each [B, h, T, D / h]."""
        return self._by_head(self.linear_q(x)), self._by_head(self.linear_k(x)), self._by_head(self.linear_v(x))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """As `attend_relative` has it, mixed by the last product."""
        drop = self.dropout if self.training else 0.0
        mixed = attend_relative(query, key, value, positions, self.pos_bias_u, self.pos_bias_v, keep, drop)
        out: Tensor = self.linear_out(mixed)
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)


def attend_locally(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    bias_u: Tensor,
    bias_v: Tensor,
    valid: Tensor,
    window: int,
) -> Tensor:
    """Each step sees `window` steps to either side: query, key and value [B, h, T, d], valid [B, T] -> [B, T, h * d].

    Time is cut into blocks of `window` queries, each with the keys of its own and its two neighbour blocks, folded
    into the batch: memory is linear in T. Positions are of distances 2w - 1 .. 1 - 2w.
    """
    batch, _, steps, _ = query.shape
    blocks = -(-steps // window)
    query, key, value = (_blocks(part, blocks, window) for part in (query, key, value))
    fill = blocks * window - steps
    near = F.pad(valid, (window, window + fill)).unfold(1, 3 * window, window)  # [B, blocks, 3w]
    row = torch.arange(window, device=valid.device)[:, None]
    column = torch.arange(3 * window, device=valid.device)[None]
    band = (row + window - column).abs() <= window
    keep = (near[:, :, None, :] & band).flatten(0, 1)[:, None]
    key, value = (_neighbours(part, blocks) for part in (key, value))
    query = query.transpose(1, 2).flatten(0, 1)  # [B * blocks, h, w, d]
    out = attend_relative(query, key, value, positions, bias_u, bias_v, keep)
    return out.view(batch, blocks * window, -1)[:, :steps]


def _blocks(x: Tensor, blocks: int, window: int) -> Tensor:
    """[B, h, T, d] -> [B, h, blocks, w, d], zero-padded."""
    x = F.pad(x, (0, 0, 0, blocks * window - x.shape[2]))
    return x.view(*x.shape[:2], blocks, window, x.shape[3])


def _neighbours(x: Tensor, blocks: int) -> Tensor:
    """[B, h, blocks, w, d] -> [B * blocks, h, 3w, d]: each block between its neighbours."""
    x = F.pad(x, (0, 0, 0, 0, 1, 1))
    x = torch.cat([x[:, :, :blocks], x[:, :, 1 : blocks + 1], x[:, :, 2:]], 3)
    return x.transpose(1, 2).flatten(0, 1)
