"""How sure a network is of what it emitted, from the entropy of all it could have emitted.

Tsallis entropy H = (sum p^a - 1) / (1 - a) with a = 0.33, as a share of the largest there can be: 1 - H / Hmax is 1
when the network is certain and 0 when all tokens are alike. It says more than the largest probability, which
these networks push towards 1 also where they err. Source: Laptev and Ginsburg, "Fast Entropy-Based Methods of
Word-Level Confidence Estimation for End-to-End Automatic Speech Recognition" (2023).

NeMo computes the same entropy and offers two ways to map it to [0, 1]: this one ("lin") and exp(-H), its default,
under which a token of probability 0.999 among 1,024 has a confidence below 0.000001: no threshold fits that.
"""

from __future__ import annotations

from torch import Tensor

from conure.decoding.emitted_token import ALPHA
from conure.fused.token_scores import tsallis_confidence

__all__ = ["confidence"]


def confidence(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities of all tokens [..., V] -> confidence [...]."""
    return tsallis_confidence(log_probabilities, ALPHA)
