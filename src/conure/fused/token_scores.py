"""The best token of each row, its log-probability and confidence, without the logits in memory.

Only three numbers per row are needed. Their sums accumulate during the matrix product: exp(logit) for the probability,
exp(alpha * logit) for the Tsallis entropy of order alpha.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["best_tokens", "best_tokens_reference", "tsallis_confidence"]


def best_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float, *, kernels: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """hidden [N, J], weight [V, J], bias [V] -> ids int64, log-probabilities and confidences float32, each [N].

    Of equal logits the lowest id wins. Logits are in float32 for any type of weights.
    """
    if has_fused_kernels(hidden.device) if kernels is None else kernels:
        from conure.fused.token_scores_kernel import launch

        return launch(hidden, weight, bias, alpha)
    return best_tokens_reference(hidden, weight, bias, alpha)


def best_tokens_reference(hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Reference implementation, with the logits in memory."""
    log_probabilities = F.linear(hidden.float(), weight.float(), bias.float()).log_softmax(-1)
    best, ids = log_probabilities.max(-1)
    return ids, best, tsallis_confidence(log_probabilities, alpha)


def tsallis_confidence(log_probabilities: Tensor, alpha: float) -> Tensor:
    """Log-probabilities of all tokens [..., V] -> 1 - H / Hmax [...], with H the Tsallis entropy of order alpha."""
    largest = log_probabilities.shape[-1] ** (1 - alpha) - 1
    share: Tensor = ((log_probabilities * alpha).exp().sum(-1) - 1) / largest
    return 1 - share
