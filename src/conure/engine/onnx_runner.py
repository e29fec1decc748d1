"""Runs a converted network on whole clips, in native kernels or ONNX Runtime; features stay in torch.

Nothing of the encoder is loaded into torch. Short clips are encoded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.cores import cores
from conure.engine.converted import read_converted
from conure.engine.converted_decoder import open_decoder
from conure.engine.converted_front import open_front
from conure.engine.graph_clips import GraphClips
from conure.engine.kernel_clips import KernelClips
from conure.engine.onnx_heads import OnnxHeads
from conure.engine.packed import Packed
from conure.models.config import AttentionContext
from conure.models.network import Heads
from conure.models.slices import Slices
from conure.native.library import available

__all__ = ["OnnxRunner"]

TOGETHER_STEPS = 512
"""Encoder steps (41 s) up to which clips are encoded together: more rows are not multiplied faster."""


class ClipEncoder(Protocol):
    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Slices[np.ndarray]:
        """As `KernelClips.encode` has it."""
        ...


class OnnxRunner:
    """Opens the folder of a converted checkpoint; `checkpoint` is what is left of it: heads and tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Without `kernels`, or where there are none, all of it are graphs."""
        self.folder = folder
        converted = read_converted(folder)
        self.checkpoint = checkpoint = converted.checkpoint
        self.config = checkpoint.config.encoder
        self.features = LogMel(checkpoint.config.mel, checkpoint.window, checkpoint.filterbank).float()
        threads = threads or cores()
        # What is left for torch is small, and its threads would take the cores from those of ONNX Runtime; so is a
        # step of the heads.
        torch.set_num_threads(1)
        self.heads: Heads = OnnxHeads(checkpoint, folder, threads=1)
        self.decoder = open_decoder(self.heads, folder, threads, kernels=kernels)
        self._front = open_front(folder, self.config, threads, kernels=kernels)
        native = kernels and available() and Packed.is_in(folder)
        self.encoder: ClipEncoder = (
            KernelClips(Packed(folder), self.config, threads) if native else GraphClips(converted, threads)
        )
        made_of = "native" if native else "onnx"
        self.description = f"{made_of} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor, prompts: Tensor | None = None) -> Slices[tuple[Tensor, Tensor]]:
        mel, frames = self.features(samples, lengths)
        return (yield from self.encode_mel(mel, frames, prompts))

    def encode_mel(
        self, mel: Tensor, frames: Tensor, prompts: Tensor | None = None, context: AttentionContext | None = None
    ) -> Slices[tuple[Tensor, Tensor]]:
        """mel [B, T, F], frames [B], prompt slots [B] -> encoded [B, S, D], counts [B].

        A context is for unified networks alone.
        """
        if self.checkpoint.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        counts = self.steps(frames)
        encoded = torch.zeros(len(counts), max(int(counts.max()), 1), self.config.width)
        for rows in _together(counts.tolist()):
            yield
            steps = counts[rows].tolist()
            x = np.concatenate(
                [self._subsample(mel[row, : max(int(frames[row]), 1)].numpy(), int(counts[row])) for row in rows]
            )
            slots = None if prompts is None or not self.checkpoint.config.prompts else prompts[rows].numpy()
            y = yield from self.encoder.encode(x, steps, slots, context)
            for row, part in zip(rows, np.split(y, np.cumsum(steps)[:-1]), strict=True):
                encoded[row, : len(part)] = torch.from_numpy(part)
        return encoded, counts

    def steps(self, frames: Tensor) -> Tensor:
        """Encoder steps that mel frames give, as Subsampling.out_steps has it."""
        for _ in range(3):
            frames = torch.div(frames + (2 if self.config.causal_subsampling else 1), 2, rounding_mode="floor")
        return frames

    def _subsample(self, mel: np.ndarray, count: int) -> np.ndarray:
        """mel [T, F] -> what the subsampling projects, [count, C]."""
        return self._front.clip(mel, count)


def _together(counts: Sequence[int]) -> Iterator[list[int]]:
    """Rows that are encoded together, in their order; those without steps are left out."""
    rows: list[int] = []
    for row, count in enumerate(counts):
        if rows and sum(counts[row] for row in rows) + count > TOGETHER_STEPS:
            yield rows
            rows = []
        if count > 0:
            rows.append(row)
    if rows:
        yield rows
