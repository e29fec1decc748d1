"""Runs a converted network in ONNX Runtime; features stay in torch.

Nothing of the encoder is loaded into torch. Rows are encoded one by one, each as long as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.clip_decoder import ClipDecoder, PlainDecoder
from conure.engine.converted import Converted, read_converted
from conure.engine.converted_front import open_front
from conure.engine.export import ENCODER_FILE, REACH, position_tables
from conure.engine.onnx_attention import AROUND, around
from conure.engine.onnx_heads import OnnxHeads
from conure.engine.sessions import open_session
from conure.models.config import AttentionContext
from conure.models.network import Heads
from conure.models.slices import Slices

__all__ = ["OnnxRunner"]

CORES = torch.get_num_threads()
"""As torch counts them before anyone else sets a number."""


class OnnxRunner:
    """Opens the folder of a converted checkpoint; `checkpoint` is what is left of it: heads and tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Without `kernels`, or where there are none, the subsampling is a graph, too."""
        self.folder = folder
        converted = read_converted(folder)
        self.checkpoint = checkpoint = converted.checkpoint
        self.config = checkpoint.config.encoder
        self.features = LogMel(checkpoint.config.mel, checkpoint.window, checkpoint.filterbank).float()
        threads = threads or CORES
        # What is left for torch is small, and its threads would take the cores from those of ONNX Runtime; so is a
        # step of the heads.
        torch.set_num_threads(1)
        self.heads: Heads = OnnxHeads(checkpoint, folder, threads=1)
        self.decoder: ClipDecoder = PlainDecoder(self.heads)
        self._front = open_front(folder, self.config, threads, kernels=kernels)
        self.encoder = open_session(folder / ENCODER_FILE, threads)
        self._positions = _LongPositions(converted)
        self.description = f"onnx {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor, prompts: Tensor | None = None) -> Slices[tuple[Tensor, Tensor]]:
        """A slice is a row."""
        if self.checkpoint.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        mel, frames = self.features(samples, lengths)
        counts = self.steps(frames)
        encoded = torch.zeros(len(counts), max(int(counts.max()), 1), self.config.width)
        for row, count in enumerate(counts.tolist()):
            if count == 0:
                continue
            yield
            slot = None if prompts is None else prompts[row : row + 1]
            encoded[row, :count] = self.encode_one(mel[row : row + 1, : max(int(frames[row]), 1)], count, slot)
        return encoded, counts

    def encode_one(
        self, mel: Tensor, count: int, slot: Tensor | None, context: AttentionContext | None = None
    ) -> Tensor:
        """mel [1, T, F], its steps, prompt [1] -> [count, D]; a context for unified networks alone."""
        given = {"x": self._subsample(mel.numpy(), count)} | self._positions.beyond(count)
        if self.checkpoint.config.prompts and slot is not None:
            given["prompts"] = slot.numpy()
        if context is not None:
            given[AROUND] = around(context)
        return torch.from_numpy(self.encoder.run(["encoded"], given)[0][0])

    def steps(self, frames: Tensor) -> Tensor:
        """Encoder steps that mel frames give, as Subsampling.out_steps has it."""
        for _ in range(3):
            frames = torch.div(frames + (2 if self.config.causal_subsampling else 1), 2, rounding_mode="floor")
        return frames

    def _subsample(self, mel: np.ndarray, count: int) -> np.ndarray:
        """mel [1, T, F] -> what the subsampling projects, [1, count, C]."""
        return self._front.clip(mel[0], count)[None]


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
