"""The loss of a batch, mixed from several losses by a curriculum.

Training starts with cross-entropy on known word positions, since CTC from random weights stays at "all blank" for
thousands of updates; the sequence losses replace it gradually. The first hundred updates have digits only, which
trains the encoder; other words follow quickly.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conure.audio.features import LogMel
from conure.models.config import AttentionContext
from conure.models.network import Network
from tools.train import spectrum
from tools.train.losses import ctc_loss, frame_loss, rnnt_loss, tdt_loss
from tools.train.strings import Batch, Stage

# Updates between which the weight of a loss changes linearly.
FRAME_FADE_OUT = (800, 2_000)
CTC_FADE_IN = (400, 1_200)
TRANSDUCER_FADE_IN = (700, 1_300)  # a third of the time, and useless before the encoder knows words
_SIGMA = 0.02


@dataclass(frozen=True)
class Mixture:
    """Weights of the losses, and the share of rows with the (costly) transducer loss."""

    frame: float
    ctc: float
    transducer: float
    rows: float


def mixture(update: int) -> Mixture:
    return Mixture(
        frame=3.0 * (1.0 - _ramp(update, FRAME_FADE_OUT)),
        ctc=0.5 * _ramp(update, CTC_FADE_IN),
        transducer=_ramp(update, TRANSDUCER_FADE_IN),
        rows=0.25,
    )


def _ramp(update: int, between: tuple[int, int]) -> float:
    return min(1.0, max(0.0, (update - between[0]) / (between[1] - between[0])))


def stage(update: int) -> Stage:
    """Easy strings first, in small batches, as the number of updates matters most at first."""
    if update < 150:
        return Stage(max_words=4, augment=False, phrase_share=0.0, digits_only=True, seconds=32.0)
    if update < 400:
        return Stage(max_words=5, augment=False, phrase_share=0.1, seconds=32.0)
    if update < 900:
        return Stage(max_words=6, phrase_share=0.35, seconds=32.0)
    return Stage(max_words=10, phrase_share=0.4, seconds=96.0)


class Objective:
    """Computes the loss of one batch."""

    def __init__(self, network: Network, mel: LogMel, device: str) -> None:
        self.network, self.mel, self.device = network, mel, device

    def __call__(
        self, batch: Batch, mix: Mixture, augment: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        mel, frames = self._features(batch, augment, rng)
        encoded, steps = self.network.encoder(mel, frames, self._context(rng))
        encoded = F.dropout(encoded, 0.1, self.network.training)
        labels, lengths = batch.labels.to(self.device), batch.label_lengths.to(self.device)
        tokens = lengths.sum().clamp(min=1)
        logits = self.network.ctc_head(encoded)
        parts = {"ctc": ctc_loss(logits, labels, steps, lengths).sum() / tokens}
        loss = mix.ctc * parts["ctc"]
        if mix.frame > 0:
            parts["frame"] = frame_loss(logits, self._targets(batch, steps, logits.shape[1]))
            loss = loss + mix.frame * parts["frame"]
        if mix.transducer > 0:
            rows = self._some_rows(len(steps), mix.rows, rng)
            parts["transducer"] = self._transducer(encoded[rows], labels[rows], steps[rows], lengths[rows])
            loss = loss + mix.transducer * parts["transducer"]
        return loss, {name: float(value.detach()) for name, value in parts.items()}

    def _context(self, rng: np.random.Generator) -> AttentionContext:
        """A random one of the network's contexts."""
        contexts = self.network.config.encoder.contexts
        return contexts[0] if len(contexts) == 1 else contexts[int(rng.integers(len(contexts)))]

    def _features(self, batch: Batch, augment: bool, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mel, frames = self.mel(batch.samples.to(self.device), batch.lengths.to(self.device))
            if augment:
                mel = spectrum.mask(spectrum.warp(mel, rng), frames, rng)
        return mel, frames

    def _targets(self, batch: Batch, steps: Tensor, size: int) -> Tensor:
        targets = batch.frames[:, :size].to(self.device)
        positions = torch.arange(size, device=self.device)
        return targets.masked_fill(positions >= steps[:, None], -100)

    def _some_rows(self, count: int, share: float, rng: np.random.Generator) -> Tensor:
        chosen = rng.permutation(count)[: max(1, round(count * share))]
        return torch.from_numpy(np.sort(chosen)).to(self.device)

    def _transducer(self, encoded: Tensor, labels: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
        """Mean over labels; the lattice is truncated to the longest used row."""
        labels, encoded = labels[:, : max(1, int(lengths.max()))], encoded[:, : int(steps.max())]
        start = torch.full_like(labels[:, :1], self.network.config.blank)
        outputs, _ = self.network.predictor(torch.cat([start, labels], 1))
        joint = self.network.joint
        left = joint.project_encoder(encoded)[:, :, None]
        right = joint.project_predictor(F.dropout(outputs, 0.1, self.network.training))[:, None]
        logits = joint.combine(left, right)
        if self.network.config.durations:
            losses = tdt_loss(logits, labels, steps, lengths, _SIGMA)
        else:
            losses = rnnt_loss(logits, labels, steps, lengths)
        return losses.sum() / lengths.sum().clamp(min=1)
