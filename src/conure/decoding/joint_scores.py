"""Results of the joint for some steps of each row: the best token, its duration and its confidence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from conure.decoding.confidence import confidence
from conure.decoding.emitted_token import ALPHA
from conure.fused.available import has_fused_kernels
from conure.fused.joint_step import gather_steps, joint_step
from conure.fused.token_scores import best_tokens
from conure.models.network import Heads
from conure.models.transducer import Joint

__all__ = ["JointScores", "score_steps"]


@dataclass(frozen=True)
class JointScores:
    ids: Tensor
    """The best token of each step, [B, W]."""
    duration: Tensor | None
    """Index of the best duration, [B, W]; None if the network predicts none."""
    logits: Tensor | None
    """[B, W, V + 1], if probability and confidence are still to be computed from them."""
    token_scores: tuple[Tensor, Tensor] | None = None
    """Log-probability and confidence of the best tokens, each [B, W], if computed together with them."""

    def scores_at(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and confidence of the best token at one step of each row, place [B] -> [B], [B]."""
        assert self.logits is not None
        index = place[:, None, None].expand(-1, 1, self.logits.shape[2])
        chosen = self.logits.gather(1, index)[:, 0].float().log_softmax(-1)
        return chosen.amax(-1), confidence(chosen)


def score_steps(heads: Heads, steps: Tensor, time: Tensor, predicted: Tensor, window: int) -> JointScores:
    """Scores of `window` steps from `time` [B] on: projected steps [B, S, J] and predictions [B, J]."""
    tokens = heads.config.vocabulary + 1
    if heads.joint is not None and has_fused_kernels(heads.device):
        return _score_fused(heads.joint, steps, time, predicted, window, tokens)
    logits = heads.score(gather_steps(steps, time, window), predicted)
    duration = logits[..., tokens:].argmax(-1) if heads.config.durations else None
    return JointScores(logits[..., :tokens].argmax(-1), duration, logits[..., :tokens])


def _score_fused(joint: Joint, steps: Tensor, time: Tensor, predicted: Tensor, window: int, tokens: int) -> JointScores:
    """Fused kernels, which do not store logits."""
    weight, bias = joint.head.weight, joint.head.bias
    duration_head = (weight[tokens:], bias[tokens:]) if len(weight) > tokens else (None, None)
    hidden, duration = joint_step(steps, time, predicted, window, *duration_head)
    ids, *token_scores = (
        part.view(hidden.shape[:2]) for part in best_tokens(hidden.flatten(0, 1), weight[:tokens], bias[:tokens], ALPHA)
    )
    return JointScores(ids, duration, None, (token_scores[0], token_scores[1]))
