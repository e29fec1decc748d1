"""Runs the streaming step of a converted network without torch; features stay in torch.

The encoder is native kernels where they are there and the network is in int8, else a graph of ONNX Runtime. Chunks are
subsampled as clips are, each behind the last frames of the chunk before; the steps that these make again are dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.cores import cores
from conure.engine.clip_decoder import Tokens
from conure.engine.converted import read_converted
from conure.engine.converted_decoder import open_decoder
from conure.engine.converted_front import open_front
from conure.engine.graph_encoder import GraphEncoder
from conure.engine.heard import Heard
from conure.engine.kernel_encoder import KernelEncoder
from conure.engine.onnx_heads import OnnxHeads
from conure.engine.packed import Packed
from conure.engine.stream_state import StreamState
from conure.models.config import STEP_FRAMES
from conure.models.network import Heads
from conure.native.library import available

__all__ = ["OnnxStreamRunner"]


Remembered = TypeVar("Remembered", bound=Heard)


class ConvertedEncoder(Protocol[Remembered]):
    """The layers between the subsampling's convolutions and the heads."""

    def allocate(self, rows: int) -> Remembered: ...

    def encode(
        self, x: np.ndarray, memory: Remembered, rows: np.ndarray, counts: np.ndarray, prompts: np.ndarray | None
    ) -> np.ndarray:
        """x [B * C, channels * bands] of rows [B] that each bring counts [B] steps -> [B * C, D]."""
        ...


class OnnxStreamRunner:
    """Opens the folder of a converted cache-aware checkpoint."""

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Without `kernels`, or where there are none, all of it are graphs."""
        converted = read_converted(folder)
        self.checkpoint = checkpoint = converted.checkpoint
        self.config = checkpoint.config
        if not self.config.encoder.cache_aware:
            raise ValueError("this network cannot be run chunk by chunk")
        self.front = LogMel(self.config.mel, checkpoint.window, checkpoint.filterbank).float()
        threads = threads or cores()
        torch.set_num_threads(1)
        self.heads: Heads = OnnxHeads(checkpoint, folder, threads=1)
        self.decoder = open_decoder(self.heads, folder, threads, kernels=kernels)
        self._front = open_front(folder, self.config.encoder, threads, kernels=kernels)
        native = kernels and available() and Packed.is_in(folder)
        encoder = KernelEncoder if native else GraphEncoder
        self._encoder: ConvertedEncoder[Any] = encoder(folder, self.config.encoder, threads)
        made_of = "native" if native else "onnx"
        self.description = f"{made_of} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def allocate(self, rows: int) -> StreamState[Heard]:
        return StreamState(self._encoder.allocate(rows), self.decoder.allocate(rows))

    @torch.inference_mode()
    def step(
        self,
        mel: Tensor,
        frames: Tensor,
        state: StreamState[Heard],
        rows: Tensor,
        prompts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Rows without frames are left out."""
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        chunk, memory = mel.shape[1] // STEP_FRAMES, state.encoder
        counts = torch.div(frames + STEP_FRAMES - 1, STEP_FRAMES, rounding_mode="floor")
        encoded = torch.zeros(len(rows), chunk, self.config.encoder.width)
        busy = frames > 0
        if not bool(busy.any()):
            return encoded, counts
        who, steps = rows[busy].numpy(), counts[busy].numpy()
        x = self._subsample(mel[busy].numpy(), frames[busy].tolist(), memory, who)
        told = None if prompts is None or not self.config.prompts else np.repeat(prompts[busy].numpy(), chunk)
        y = self._encoder.encode(x, memory, who, steps, told)
        encoded[busy] = torch.from_numpy(y).view(-1, *encoded.shape[1:])
        memory.move_on(who, steps)
        return encoded, counts

    def decode(self, encoded: Tensor, counts: Tensor, state: StreamState[Heard], rows: Tensor) -> Tokens:
        return self.decoder.decode_rows(encoded, counts, state.decoder, rows)

    def _subsample(self, mel: np.ndarray, frames: list[int], memory: Heard, rows: np.ndarray) -> np.ndarray:
        """mel [B, 8C, F] -> what the subsampling projects, [B * C, channels * bands]; zeros after a row's last step."""
        chunk = mel.shape[1] // STEP_FRAMES
        pieces = [
            memory.hear(row, mel[place, :count]) for place, (row, count) in enumerate(zip(rows, frames, strict=True))
        ]
        return self._front.chunks(pieces, chunk).reshape(len(rows) * chunk, -1)
