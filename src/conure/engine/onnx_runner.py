"""Runs a converted network in ONNX Runtime; features stay in torch.

Nothing of the encoder is loaded into torch. Clips are subsampled row by row in pieces: the convolutions'
activations are 32 times the size of the mel, and a row cut at its own end needs no masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.converted import Converted, read_converted
from conure.engine.export import ENCODER_FILE, FRONT_FILE, REACH, position_tables
from conure.engine.onnx_attention import SPANS
from conure.engine.onnx_heads import OnnxHeads
from conure.engine.sessions import open_session
from conure.models.config import STEP_FRAMES
from conure.models.network import Heads

__all__ = ["OnnxRunner"]

PIECE_STEPS = 64
"""Encoder steps (5 s) subsampled at a time."""


class OnnxRunner:
    """Opens the folder of a converted checkpoint; `checkpoint` is what is left of it: heads and tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder = folder
        converted = read_converted(folder)
        self.checkpoint = checkpoint = converted.checkpoint
        self.config = checkpoint.config.encoder
        self.features = LogMel(checkpoint.config.mel, checkpoint.window, checkpoint.filterbank).float()
        threads = threads or torch.get_num_threads()
        self.heads: Heads = OnnxHeads(checkpoint, folder, threads)
        self.front, self.encoder = (open_session(folder / name, threads) for name in (FRONT_FILE, ENCODER_FILE))
        self._positions = _LongPositions(converted)
        self.description = f"onnx {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor, prompts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mel, frames = self.features(samples, lengths)
        counts = self._steps(frames)
        steps = max(int(counts.max()), 1)
        x = self._subsample(mel.numpy(), frames.tolist(), counts.tolist())
        given = {"x": x, "counts": counts.numpy()} | self._positions.beyond(x.shape[1])
        if self.checkpoint.config.prompts:
            if prompts is None:
                raise ValueError("this model needs a prompt slot for every row")
            given["prompts"] = prompts.numpy()
        encoded = self.encoder.run(["encoded"], given)[0]
        return torch.from_numpy(encoded)[:, :steps], counts

    def _steps(self, frames: Tensor) -> Tensor:
        """Encoder steps that mel frames give, as Subsampling.out_steps has it."""
        for _ in range(3):
            frames = torch.div(frames + (2 if self.config.causal_subsampling else 1), 2, rounding_mode="floor")
        return frames

    def _subsample(self, mel: np.ndarray, frames: list[int], counts: list[int]) -> np.ndarray:
        """mel [B, T, F] -> what the subsampling projects, [B, S, C]; padding is 0.

        A piece begins a little earlier, and the steps that the missing past makes wrong are dropped.
        """
        lead = 2 if self.config.causal_subsampling else 1
        width = self.front.get_outputs()[0].shape[2]
        x = np.zeros((len(counts), max(SPANS, *counts), width), np.float32)
        for row, (end, count) in enumerate(zip(frames, counts, strict=True)):
            for begin in range(0, count, PIECE_STEPS):
                lost = min(begin, lead)
                first, last = (begin - lost) * STEP_FRAMES, (begin + PIECE_STEPS) * STEP_FRAMES
                piece = np.ascontiguousarray(mel[row : row + 1, first : min(max(end, 1), last)])
                steps = self.front.run(["x"], {"mel": piece})[0][0, lost : lost + PIECE_STEPS]
                x[row, begin : begin + len(steps)] = steps
        return x


class _LongPositions:
    """Tables for clips longer than those of the graph reach; the last are kept."""

    def __init__(self, converted: Converted) -> None:
        self.converted = converted
        self.tables: dict[str, np.ndarray] = {}
        self.reach = REACH

    def beyond(self, steps: int) -> dict[str, np.ndarray]:
        """Empty where those of the graph do."""
        encoder = self.converted.checkpoint.config.encoder
        if encoder.local or steps <= REACH:
            return {}
        if steps > self.reach or not self.tables:
            self.reach = 1 << (steps - 1).bit_length()
            self.tables = {}
            for index, weight in enumerate(self.converted.position_weights):
                kept = position_tables(self.converted.products, weight, encoder.heads, self.reach)
                self.tables |= {f"{name}.{index}": table for name, table in kept.items()}
        return self.tables
