"""Silero VAD for streams whose state stays on a device: a row a slot, some rows and some steps a call.

    samples ─> frames ─> magnitudes ─> 4 convolutions ─> the LSTM's input, of all rows and steps at once
                                     the LSTM's cell, step by step ─> probabilities of all rows and steps at once

Every shape follows from those of the arguments and nothing is asked of the device, so a call can be part of a captured
graph: a row that has fewer steps than others goes along, and its state is taken from where it ended. The plain twin is
`Silero.listen_together`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conure.vad.silero_weights import BINS, CONTEXT, HALF, MEMORY, PLACES, STEP, WIDTH, Tensors, convolutions, fourier

__all__ = ["SileroRows", "SlotSilero"]


@dataclass(frozen=True)
class SileroRows:
    """What is remembered of each slot's stream."""

    values: Tensor
    """[slots, MEMORY], float32: its last samples, the LSTM's output and its cell, which so move at once."""

    @property
    def bytes(self) -> int:
        return self.values.nbytes

    @staticmethod
    def row_bytes() -> int:
        return MEMORY * torch.float32.itemsize


class SlotSilero:
    """The network in float32, with its weights on a device."""

    def __init__(self, tensors: Tensors, device: torch.device) -> None:
        def constant(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        rnn = {
            name: _gates(tensors[f"decoder.rnn.{name}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        self._places = constant(PLACES.reshape(-1))
        self._last = constant(np.arange(CONTEXT))
        self._basis = constant(_basis())
        self._layers = [(constant(matrix), constant(bias)) for matrix, bias in convolutions(tensors)]
        self._from_input = constant(rnn["weight_ih"].T)
        self._from_output = constant(rnn["weight_hh"].T)
        self._bias = constant(rnn["bias_ih"] + rnn["bias_hh"])
        self._head = constant(tensors["decoder.decoder.2.weight"]), constant(tensors["decoder.decoder.2.bias"])

    def allocate(self, slots: int) -> SileroRows:
        return SileroRows(self._basis.new_zeros(slots, MEMORY))

    @torch.inference_mode()
    def detect(self, samples: Tensor, counts: Tensor, fresh: Tensor, rows: Tensor, state: SileroRows) -> Tensor:
        """The next steps of some streams, whose state is moved on in place.

        samples [B, n * STEP] float32 for the slots `rows` [B], of which the first `counts` [B] steps, 0 to n, are real;
        both int64 -> probabilities [B, n], without meaning after a row's last real step. The samples there leave no
        trace in the state either. Rows that are `fresh` [B] bool begin a stream, whatever their slots hold. A slot may
        be named twice only where nobody reads it, as by padding.
        """
        remembered = state.values.index_select(0, rows).masked_fill(fresh[:, None], 0)
        context, hidden, cell = torch.split(remembered, [CONTEXT, WIDTH, WIDTH], 1)
        known = torch.cat([context, samples], 1)
        hiddens, cells = self._lstm(self._encode(known), hidden, cell)
        after = [known.gather(1, counts[:, None] * STEP + self._last), _at(hiddens, counts), _at(cells, counts)]
        state.values.index_copy_(0, rows, torch.cat(after, 1))
        weight, bias = self._head
        return torch.sigmoid(hiddens[1:].relu() @ weight + bias).T

    def _encode(self, known: Tensor) -> Tensor:
        """Context and samples [B, 64 + n * STEP] -> what the inputs give to the LSTM's gates, [n, B, 512]."""
        steps = known.unfold(1, CONTEXT + STEP, STEP).transpose(0, 1)
        spectra = steps.index_select(2, self._places).view(-1, 2 * HALF) @ self._basis
        values = torch.hypot(spectra[:, :BINS], spectra[:, BINS:]).view(steps.shape[0] * steps.shape[1], -1)
        for matrix, bias in self._layers:
            values = torch.addmm(bias, values, matrix).relu_()
        return torch.addmm(self._bias, values, self._from_input).view(*steps.shape[:2], -1)

    def _lstm(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [n, B, 512], used up -> outputs and cells before the first step and after each, [n + 1, B, 128]."""
        hiddens, cells = [hidden], [cell]
        for given in inputs.unbind():
            gates = given.addmm_(hidden, self._from_output)
            into, forget, out = gates[:, : 3 * WIDTH].sigmoid().chunk(3, 1)
            cell = torch.addcmul(forget * cell, into, gates[:, 3 * WIDTH :].tanh())
            hidden = out * cell.tanh()
            hiddens.append(hidden)
            cells.append(cell)
        return torch.stack(hiddens), torch.stack(cells)


def _at(values: Tensor, counts: Tensor) -> Tensor:
    """values [n + 1, B, 128] -> those after `counts` [B] steps, [B, 128]."""
    return values.gather(0, counts[None, :, None].expand(1, -1, values.shape[2])).squeeze(0)


def _basis() -> NDArray[np.float32]:
    """Cosines and sines of whole frames, [256, 2 * 129]: one product, where halves would have to be made for two."""
    cosines, sines = fourier()
    basis = np.zeros((2 * HALF, 2 * BINS), np.float32)
    basis[1 : HALF + 1] = np.concatenate([cosines, sines], 1)
    basis[: HALF - 1 : -1] += np.concatenate([cosines, -sines], 1)
    return basis


def _gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Input, forget, cell, output in torch's order -> cell last: the others share a sigmoid."""
    into, forget, cell, out = np.split(values, 4)
    return np.concatenate([into, forget, out, cell])
