"""How sure a network is of what it emitted, from the entropy of all it could have emitted.

Tsallis entropy H = (1 - sum p^a) / (a - 1) with a = 0.33, mapped to [0, 1] by an exponential so that
certainty is 1 and a flat distribution 0. It says more than the largest probability, which these networks
push towards 1 also where they err. Source: Laptev and Ginsburg, "Fast Entropy-Based Methods of
Word-Level Confidence Estimation for End-to-End Automatic Speech Recognition" (2023), NeMo's default.
"""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["ALPHA", "confidence"]

ALPHA = 0.33


def confidence(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities of all tokens [..., V] -> confidence [...]."""
    size = log_probabilities.shape[-1]
    largest = (size ** (1 - ALPHA) - 1) / (1 - ALPHA)
    entropy = ((log_probabilities * ALPHA).exp().sum(-1) - 1) / (1 - ALPHA)
    floor = math.exp(-largest)
    return ((-entropy).exp() - floor) / (1 - floor)
