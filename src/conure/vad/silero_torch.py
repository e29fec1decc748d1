"""Silero VAD for streams whose state stays on a device, one row per slot; a call computes some rows and steps.

    samples ─> frames ─> magnitudes ─> 4 convolutions ─> the LSTM's input, of all rows and steps at once
                                     the LSTM's cell, step by step ─> probabilities of all rows and steps at once

All shapes follow from those of the arguments and there is no synchronisation with the device, so a call can be part of
a captured CUDA graph: rows with fewer steps are padded, and their state is that after their last step. The reference
implementation is `Silero.detect_batch`.
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
    """The state of the stream in each slot."""

    values: Tensor
    """[slots, MEMORY], float32: last samples, LSTM output and LSTM cell, in one tensor to copy them together."""

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
        """Detects speech in the next steps of some streams and updates their state in place.

        samples [B, n * STEP] float32 for the slots `rows` [B], of which the first `counts` [B] steps, 0 to n, are
        valid; both int64 -> probabilities [B, n], undefined after a row's last valid step. Samples after it do not
        affect the state. Rows with `fresh` [B] bool start a stream; the old state of their slots is ignored. Only the
        scratch slot may occur more than once.
        """
        previous = state.values.index_select(0, rows).masked_fill(fresh[:, None], 0)
        context, hidden, cell = torch.split(previous, [CONTEXT, WIDTH, WIDTH], 1)
        with_context = torch.cat([context, samples], 1)
        hiddens, cells = self._lstm(self._encode(with_context), hidden, cell)
        after = [with_context.gather(1, counts[:, None] * STEP + self._last), _at(hiddens, counts), _at(cells, counts)]
        state.values.index_copy_(0, rows, torch.cat(after, 1))
        weight, bias = self._head
        return torch.sigmoid(hiddens[1:].relu() @ weight + bias).T

    def _encode(self, with_context: Tensor) -> Tensor:
        """Context and samples [B, 64 + n * STEP] -> the inputs' part of the LSTM's gates, [n, B, 512]."""
        steps = with_context.unfold(1, CONTEXT + STEP, STEP).transpose(0, 1)
        spectra = steps.index_select(2, self._places).view(-1, 2 * HALF) @ self._basis
        values = torch.hypot(spectra[:, :BINS], spectra[:, BINS:]).view(steps.shape[0] * steps.shape[1], -1)
        for matrix, bias in self._layers:
            values = torch.addmm(bias, values, matrix).relu_()
        return torch.addmm(self._bias, values, self._from_input).view(*steps.shape[:2], -1)

    def _lstm(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [n, B, 512], overwritten -> outputs and cells before and after each step, [n + 1, B, 128]."""
        hiddens, cells = [hidden], [cell]
        for step_inputs in inputs.unbind():
            gates = step_inputs.addmm_(hidden, self._from_output)
            into, forget, out = gates[:, : 3 * WIDTH].sigmoid().chunk(3, 1)
            cell = torch.addcmul(forget * cell, into, gates[:, 3 * WIDTH :].tanh())
            hidden = out * cell.tanh()
            hiddens.append(hidden)
            cells.append(cell)
        return torch.stack(hiddens), torch.stack(cells)


def _at(values: Tensor, counts: Tensor) -> Tensor:
    """values [n + 1, B, 128] -> the values after `counts` [B] steps, [B, 128]."""
    return values.gather(0, counts[None, :, None].expand(1, -1, values.shape[2])).squeeze(0)


def _basis() -> NDArray[np.float32]:
    """Cosines and sines of whole frames, [256, 2 * 129]: one product instead of sums and differences for two."""
    cosines, sines = fourier()
    basis = np.zeros((2 * HALF, 2 * BINS), np.float32)
    basis[1 : HALF + 1] = np.concatenate([cosines, sines], 1)
    basis[: HALF - 1 : -1] += np.concatenate([cosines, -sines], 1)
    return basis


def _gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gates in torch's order (input, forget, cell, output) -> cell last, because the others share a sigmoid."""
    into, forget, cell, out = np.split(values, 4)
    return np.concatenate([into, forget, out, cell])
