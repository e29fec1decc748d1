"""Confidence of tokens, from the entropy of the distribution over all tokens.

Tsallis entropy H = (sum p^a - 1) / (1 - a) with a = 0.33, normalised by its maximum: 1 - H / Hmax is 1 if the network
is certain and 0 if all tokens are equally likely. It is more informative than the largest probability, which is close
to 1 in these networks even for errors. Source: Laptev and Ginsburg, "Fast Entropy-Based Methods of Word-Level
Confidence Estimation for End-to-End Automatic Speech Recognition" (2023).

NeMo computes the same entropy and maps it to [0, 1] in one of two ways: this one ("lin"), or exp(-H), its default, with
which a token of probability 0.999 among 1,024 has a confidence below 0.000001, so that no threshold is usable.
"""

from __future__ import annotations

from torch import Tensor

from conure.decoding.emitted_token import ALPHA
from conure.fused.token_scores import tsallis_confidence

__all__ = ["confidence"]


def confidence(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities of all tokens [..., V] -> confidence [...]."""
    return tsallis_confidence(log_probabilities, ALPHA)
