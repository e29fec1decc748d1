"""What the joint says of some steps of each row: the best token, how long it lasts, how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from conure.decoding.confidence import confidence
from conure.models.network import Heads

__all__ = ["Scores", "look"]


@dataclass(frozen=True)
class Scores:
    ids: Tensor
    """The best token of each step, [B, W]."""
    duration: Tensor | None
    """Which of the durations is the best, [B, W]; None where the network predicts none."""
    logits: Tensor
    """[B, W, V + 1]."""

    def sureness(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and confidence of the best token at one step of each row, place [B] -> [B], [B]."""
        index = place[:, None, None].expand(-1, 1, self.logits.shape[2])
        log_probs = self.logits.gather(1, index)[:, 0].float().log_softmax(-1)
        return log_probs.amax(-1), confidence(log_probs)


def look(heads: Heads, steps: Tensor, predicted: Tensor) -> Scores:
    """Projected steps [B, W, J] and prediction [B, J]."""
    logits = heads.score(steps, predicted)
    tokens = heads.config.vocabulary + 1
    duration = logits[..., tokens:].argmax(-1) if heads.config.durations else None
    return Scores(logits[..., :tokens].argmax(-1), duration, logits[..., :tokens])
