"""What the joint says of some steps of each row: the best token, how long it lasts, how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from conure.decoding.confidence import ALPHA, confidence
from conure.fused.available import available
from conure.fused.token_scores import best_tokens
from conure.models.network import Heads
from conure.models.transducer import Joint

__all__ = ["Scores", "look"]


@dataclass(frozen=True)
class Scores:
    ids: Tensor
    """The best token of each step, [B, W]."""
    duration: Tensor | None
    """Which of the durations is the best, [B, W]; None where the network predicts none."""
    logits: Tensor | None
    """[B, W, V + 1], where it is to be found from them how sure the network is."""
    sure: tuple[Tensor, Tensor] | None = None
    """Log-probability and confidence of the best tokens, each [B, W], where they were found with them."""

    def sureness(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and confidence of the best token at one step of each row, place [B] -> [B], [B]."""
        if self.sure is not None:
            log_probs, confidences = (part.gather(1, place[:, None])[:, 0] for part in self.sure)
            return log_probs, confidences
        assert self.logits is not None
        index = place[:, None, None].expand(-1, 1, self.logits.shape[2])
        chosen = self.logits.gather(1, index)[:, 0].float().log_softmax(-1)
        return chosen.amax(-1), confidence(chosen)


def look(heads: Heads, steps: Tensor, predicted: Tensor) -> Scores:
    """Projected steps [B, W, J] and prediction [B, J]."""
    tokens = heads.config.vocabulary + 1
    if heads.joint is not None and available(heads.device):
        return _found_together(heads.joint, steps, predicted, tokens)
    logits = heads.score(steps, predicted)
    duration = logits[..., tokens:].argmax(-1) if heads.config.durations else None
    return Scores(logits[..., :tokens].argmax(-1), duration, logits[..., :tokens])


def _found_together(joint: Joint, steps: Tensor, predicted: Tensor, tokens: int) -> Scores:
    """By a kernel that keeps no logits."""
    hidden, weight, bias = joint.mix(steps, predicted[:, None]), joint.head.weight, joint.head.bias
    ids, *sure = (
        part.view(hidden.shape[:2]) for part in best_tokens(hidden.flatten(0, 1), weight[:tokens], bias[:tokens], ALPHA)
    )
    duration = F.linear(hidden, weight[tokens:], bias[tokens:]).argmax(-1) if len(weight) > tokens else None
    return Scores(ids, duration, None, (sure[0], sure[1]))
