"""The transducer's two small networks: a prediction network over tokens, a joint over both sides.

Source: Graves, "Sequence Transduction with Recurrent Neural Networks" (2012); Xu et al., "Efficient
Sequence Transduction by Jointly Predicting Tokens and Durations" (TDT, 2023).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.fused.lstm_step import lstm_step
from conure.models.config import NetworkConfig

__all__ = ["Joint", "LstmState", "Predictor"]

LstmState = tuple[Tensor, Tensor]
"""Hidden and cell, each [layers, B, P]."""


class Predictor(nn.Module):
    """An LSTM over the tokens emitted so far. The blank's id is the start symbol."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.predictor_width
        self.embedding = nn.Embedding(config.vocabulary + 1, width, padding_idx=config.blank)
        self.lstm = nn.LSTM(width, width, config.predictor_layers, batch_first=True)

    def forward(self, tokens: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
        """tokens [B, U] -> outputs [B, U, P] and the state after the last."""
        outputs, state = self.lstm(self.embedding(tokens), state)
        return outputs, state

    def step(self, tokens: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """One token per row, [B] -> output [B, P] and state: the results of `forward` for a sequence of one.

        Runs cell by cell, because nn.LSTM prepares its weights again in every call, which on a CPU costs
        ten times as much as the step itself.
        """
        x, hidden, cell = self.embedding(tokens), [], []
        for layer, weights in enumerate(self.lstm.all_weights):
            x, memory = torch.lstm_cell(x, (state[0][layer], state[1][layer]), *weights)
            hidden.append(x)
            cell.append(memory)
        return x, (torch.stack(hidden), torch.stack(cell))

    def step_in_place(self, tokens: Tensor, moves: Tensor, state: LstmState) -> Tensor:
        """Like `step` for the rows where `moves` [B] is true, in place; the others return their last output."""
        x: Tensor = self.embedding(tokens)
        for hidden, cell, weights in zip(*state, self.lstm.all_weights, strict=True):
            fresh, recurrent, fresh_bias, recurrent_bias = weights
            lstm_step(x @ fresh.T, hidden @ recurrent.T, fresh_bias, recurrent_bias, moves, hidden, cell)
            x = hidden
        return x


class Joint(nn.Module):
    """Scores of the next token (blank last), then of its duration for TDT."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.enc = nn.Linear(config.encoder.width, config.joint_width)
        self.pred = nn.Linear(config.predictor_width, config.joint_width)
        self.head = nn.Linear(config.joint_width, config.vocabulary + 1 + len(config.durations))

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """[..., D] -> [..., J]."""
        out: Tensor = self.enc(encoded)
        return out

    def project_predictor(self, outputs: Tensor) -> Tensor:
        """[..., P] -> [..., J]."""
        out: Tensor = self.pred(outputs)
        return out

    def mix(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projected encoder and predictor outputs that broadcast, [..., J] -> input of the last product, [..., J]."""
        return F.relu(encoded + predicted)

    def combine(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projected encoder and predictor outputs that broadcast, [..., J] -> logits [..., V + 1 + durations]."""
        out: Tensor = self.head(self.mix(encoded, predicted))
        return out
