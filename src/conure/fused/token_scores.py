"""The best token of each row with its probability, and how sure the network is of it, without logits in memory.

Of what a joint says over thousands of tokens three numbers are wanted. The sums that they take run along with the
product: of exp(logit) for the probability, and of exp(alpha * logit) for the Tsallis entropy of order alpha.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from conure.fused.available import has_fused_kernels

__all__ = ["best_tokens", "best_tokens_plainly", "tsallis_confidence"]


def best_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float, *, kernels: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """hidden [N, J], weight [V, J], bias [V] -> ids int64, log-probabilities and confidences float32, each [N].

    Of equal logits the lowest id is taken. Logits are in float32 whatever the weights are.
    """
    if has_fused_kernels(hidden.device) if kernels is None else kernels:
        from conure.fused.token_scores_kernel import launch

        return launch(hidden, weight, bias, alpha)
    return best_tokens_plainly(hidden, weight, bias, alpha)


def best_tokens_plainly(hidden: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the logits in memory."""
    log_probabilities = F.linear(hidden.float(), weight.float(), bias.float()).log_softmax(-1)
    best, ids = log_probabilities.max(-1)
    return ids, best, tsallis_confidence(log_probabilities, alpha)


def tsallis_confidence(log_probabilities: Tensor, alpha: float) -> Tensor:
    """Log-probabilities of all tokens [..., V] -> 1 - H / Hmax [...], with H the Tsallis entropy of order alpha."""
    largest = log_probabilities.shape[-1] ** (1 - alpha) - 1
    share: Tensor = ((log_probabilities * alpha).exp().sum(-1) - 1) / largest
    return 1 - share
