"""A complete speech recognition network: encoder, language prompt, transducer and CTC heads, by its config."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.models.config import AttentionContext, NetworkConfig
from conure.models.conformer import Encoder, SpeakerActivities
from conure.models.transducer import Joint, LstmState, Predictor

__all__ = ["Heads", "Network", "Prompt"]


class Prompt(nn.Module):
    """Conditions every step on the language.

    A two-layer network over [step, one-hot slot]; the one-hot half of its first layer is a table of
    biases, so each row of a batch may have its own language.
    """

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width + slots, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, encoded: Tensor, slots: Tensor) -> Tensor:
        """encoded [B, S, D], slots [B] -> [B, S, D]."""
        width = encoded.shape[-1]
        steps, table = self.linear1.weight[:, :width], self.linear1.weight[:, width:]
        hidden = F.linear(encoded, steps, self.linear1.bias) + table.T[slots][:, None]
        out: Tensor = self.linear2(F.relu(hidden))
        return out


class Heads(nn.Module):
    """The layers from encoder output to token scores: transducer, CTC or both, by the config."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = Predictor(config) if config.predictor_width else None
        self.joint = Joint(config) if config.predictor_width else None
        self.ctc_head = nn.Linear(config.encoder.width, config.vocabulary + 1) if config.ctc else None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # The interface of transducer decoders. Other backends implement it with the same results.

    def start(self, rows: int) -> tuple[Tensor, LstmState]:
        """The prediction network after the start symbol: projected output [B, J] and state."""
        width, layers = self.config.predictor_width, self.config.predictor_layers
        zeros = torch.zeros(layers, rows, width, device=self.device)
        tokens = torch.full((rows,), self.config.blank, dtype=torch.long, device=self.device)
        return self.advance(tokens, (zeros, zeros.clone()))

    def advance(self, tokens: Tensor, memory: LstmState) -> tuple[Tensor, LstmState]:
        """Advances the prediction network by one token per row, [B]: projected output [B, J] and state."""
        predictor, joint = self._transducer()
        output, memory = predictor.step(tokens, memory)
        return joint.project_predictor(output), memory

    def advance_in_place(self, tokens: Tensor, moves: Tensor, memory: LstmState, predicted: Tensor) -> None:
        """Like `advance` for the rows where `moves` [B] is true; writes projected output and state in place."""
        predictor, joint = self._transducer()
        output = predictor.step_in_place(tokens, moves, memory)
        torch.addmm(joint.pred.bias, output, joint.pred.weight.T, out=predicted)

    def project(self, encoded: Tensor) -> Tensor:
        """Projects encoder output [..., D] for the joint, [..., J]."""
        return self._transducer()[1].project_encoder(encoded)

    def score(self, steps: Tensor, predicted: Tensor) -> Tensor:
        """Projected steps [B, W, J] and prediction [B, J] -> logits [B, W, V + 1 + durations]."""
        return self._transducer()[1].combine(steps, predicted[:, None])

    def _transducer(self) -> tuple[Predictor, Joint]:
        if self.predictor is None or self.joint is None:
            raise ValueError("this network has no transducer head")
        return self.predictor, self.joint


class Network(Heads):
    """The heads with the encoder and, if the model has one, the language prompt."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config.encoder)
        self.prompt = Prompt(config.encoder.width, config.prompts) if config.prompts else None

    def encode(
        self,
        mel: Tensor,
        frames: Tensor,
        prompts: Tensor | None = None,
        context: AttentionContext | None = None,
        speakers: SpeakerActivities | None = None,
        chunk_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Whole clips: mel [B, T, F], frames [B], prompt slots [B] -> input of the heads, [B, S, D], and counts [B]."""
        encoded, counts = self.encoder(mel, frames, context, speakers, chunk_steps)
        return self.apply_prompt(encoded, prompts), counts

    def apply_prompt(self, encoded: Tensor, prompts: Tensor | None) -> Tensor:
        """Applies the language prompt if the model has one."""
        if self.prompt is None or prompts is None:
            return encoded
        out: Tensor = self.prompt(encoded, prompts)
        return out
