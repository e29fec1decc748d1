"""Runs the streaming step of a converted network.

The encoder is native kernels where they are there and the network is in int8, else a graph of ONNX Runtime.

Chunks are subsampled by the graph for clips, each behind the last frames of the chunk before; the steps that these
make again are dropped. That is faster than to take up the convolutions where they ended: nothing stands between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from conure.cores import cores
from conure.engine.clip_decoder import Tokens
from conure.engine.converted import read_converted
from conure.engine.converted_decoder import open_decoder
from conure.engine.converted_front import open_front
from conure.engine.graph_encoder import GraphEncoder
from conure.engine.heard import Heard
from conure.engine.kernel_encoder import KernelEncoder
from conure.engine.packed import Packed
from conure.engine.stream_state import StreamState
from conure.models.config import STEP_FRAMES
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
        self.checkpoint = converted.checkpoint
        self.config = self.checkpoint.config
        if not self.config.encoder.cache_aware:
            raise ValueError("this network cannot be run chunk by chunk")
        self.front = converted.front()
        threads = threads or cores()
        self.decoder = open_decoder(converted, threads, kernels=kernels)
        self._front = open_front(folder, self.config.encoder, threads, kernels=kernels)
        native = kernels and available() and Packed.is_in(folder)
        encoder = KernelEncoder if native else GraphEncoder
        self._encoder: ConvertedEncoder[Any] = encoder(folder, self.config.encoder, threads)
        made_of = "native" if native else "onnx"
        self.description = f"{made_of} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def allocate(self, rows: int) -> StreamState[Heard]:
        return StreamState(self._encoder.allocate(rows), self.decoder.allocate(rows))

    def step(
        self,
        mel: np.ndarray,
        frames: np.ndarray,
        state: StreamState[Heard],
        rows: np.ndarray,
        prompts: np.ndarray | None = None,
        flush: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows without frames are left out.

        A chunk that is flushed is written into the rings as any other is, after the row's last step. They hold a chunk
        more than a step sees, and the chunk that comes again is written over it.
        """
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        chunk, memory = mel.shape[1] // STEP_FRAMES, state.encoder
        counts = -(-frames // STEP_FRAMES)
        encoded = np.zeros((len(rows), chunk, self.config.encoder.width), np.float32)
        busy = frames > 0
        if not busy.any():
            return encoded, counts
        who, steps = rows[busy], counts[busy]
        moves = np.ones(len(who), bool) if flush is None else ~flush[busy]
        x = self._subsample(mel[busy], frames[busy].tolist(), memory, who, moves)
        told = None if prompts is None or not self.config.prompts else np.repeat(prompts[busy], chunk)
        y = self._encoder.encode(x, memory, who, steps, told)
        encoded[busy] = y.reshape(-1, *encoded.shape[1:])
        memory.move_on(who[moves], steps[moves])
        return encoded, counts

    def decode(
        self,
        encoded: np.ndarray,
        counts: np.ndarray,
        state: StreamState[Heard],
        rows: np.ndarray,
        flush: np.ndarray | None = None,
    ) -> Tokens:
        return self.decoder.decode_rows(encoded, counts, state.decoder, rows, flush)

    def _subsample(
        self, mel: np.ndarray, frames: list[int], memory: Heard, rows: np.ndarray, moves: np.ndarray
    ) -> np.ndarray:
        """mel [B, 8C, F] -> what the subsampling projects, [B * C, channels * bands]; zeros after a row's last step."""
        chunk = mel.shape[1] // STEP_FRAMES
        pieces = [
            memory.hear(row, mel[place, :count], keep=moves[place])
            for place, (row, count) in enumerate(zip(rows, frames, strict=True))
        ]
        return self._front.chunks(pieces, chunk).reshape(len(rows) * chunk, -1)
