"""What the joint says of some steps of each row: the best token, how long it lasts, how sure it is."""

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
    """Which of the durations is the best, [B, W]; None where the network predicts none."""
    logits: Tensor | None
    """[B, W, V + 1], where it is to be found from them how sure the network is."""
    token_scores: tuple[Tensor, Tensor] | None = None
    """Log-probability and confidence of the best tokens, each [B, W], where they were found with them."""

    def scores_at(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """From the logits: those of the best token at one step of each row, place [B] -> [B], [B]."""
        assert self.logits is not None
        index = place[:, None, None].expand(-1, 1, self.logits.shape[2])
        chosen = self.logits.gather(1, index)[:, 0].float().log_softmax(-1)
        return chosen.amax(-1), confidence(chosen)


def score_steps(heads: Heads, steps: Tensor, time: Tensor, predicted: Tensor, window: int) -> JointScores:
    """Projected steps [B, S, J], of which so many from `time` [B] on are looked at, and predictions [B, J]."""
    tokens = heads.config.vocabulary + 1
    if heads.joint is not None and has_fused_kernels(heads.device):
        return _found_together(heads.joint, steps, time, predicted, window, tokens)
    logits = heads.score(gather_steps(steps, time, window), predicted)
    duration = logits[..., tokens:].argmax(-1) if heads.config.durations else None
    return JointScores(logits[..., :tokens].argmax(-1), duration, logits[..., :tokens])


def _found_together(
    joint: Joint, steps: Tensor, time: Tensor, predicted: Tensor, window: int, tokens: int
) -> JointScores:
    """By kernels that keep no logits."""
    weight, bias = joint.head.weight, joint.head.bias
    lasting = (weight[tokens:], bias[tokens:]) if len(weight) > tokens else (None, None)
    hidden, duration = joint_step(steps, time, predicted, window, *lasting)
    ids, *sure = (
        part.view(hidden.shape[:2]) for part in best_tokens(hidden.flatten(0, 1), weight[:tokens], bias[:tokens], ALPHA)
    )
    return JointScores(ids, duration, None, (sure[0], sure[1]))
