"""Runs the streaming step of a converted network.

The encoder is native kernels where they are there and the network is in int8, else a graph of ONNX Runtime.

Chunks are subsampled by the graph for clips, each behind the last frames of the chunk before; the steps that these
make again are dropped. That is faster than to take up the convolutions where they ended: nothing stands between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from conure.cpu_count import core_count
from conure.engine.backends.cpu.decoder import open_decoder
from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.engine.backends.cpu.native_stream_encoder import NativeStreamEncoder
from conure.engine.backends.cpu.onnx_stream_encoder import OnnxStreamEncoder
from conure.engine.backends.cpu.subsampling import open_subsampling
from conure.engine.backends.cpu.subsampling_state import SubsamplingState
from conure.engine.backends.decoder import Tokens
from conure.engine.backends.stream_state import StreamState
from conure.engine.convert.converted_folder import read_converted
from conure.models.config import STEP_FRAMES
from conure.native.library import has_native_kernels

__all__ = ["CpuStreamRunner"]


Remembered = TypeVar("Remembered", bound=SubsamplingState)


class ConvertedEncoder(Protocol[Remembered]):
    """The layers between the subsampling's convolutions and the heads."""

    def allocate(self, rows: int) -> Remembered: ...

    def encode(
        self, x: np.ndarray, memory: Remembered, rows: np.ndarray, counts: np.ndarray, prompts: np.ndarray | None
    ) -> np.ndarray:
        """x [B * C, channels * bands] of rows [B] that each bring counts [B] steps -> [B * C, D]."""
        ...


class CpuStreamRunner:
    """Opens the folder of a converted cache-aware checkpoint."""

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Without `kernels`, or where there are none, all of it are graphs."""
        converted = read_converted(folder)
        self.checkpoint = converted.checkpoint
        self.config = self.checkpoint.config
        if not self.config.encoder.is_cache_aware:
            raise ValueError("this network cannot be run chunk by chunk")
        self.feature_extractor = converted.feature_extractor()
        threads = threads or core_count()
        self.decoder = open_decoder(converted, threads, kernels=kernels)
        self._front = open_subsampling(folder, self.config.encoder, threads, kernels=kernels)
        native = kernels and has_native_kernels() and Int8Weights.is_in(folder)
        encoder = NativeStreamEncoder if native else OnnxStreamEncoder
        self._encoder: ConvertedEncoder[Any] = encoder(folder, self.config.encoder, threads)
        made_of = "native" if native else "onnx"
        self.description = f"{made_of} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def allocate(self, rows: int) -> StreamState[SubsamplingState]:
        return StreamState(self._encoder.allocate(rows), self.decoder.allocate(rows))

    def encode_chunk(
        self,
        mel: np.ndarray,
        frames: np.ndarray,
        state: StreamState[SubsamplingState],
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

    def decode_chunk(
        self,
        encoded: np.ndarray,
        counts: np.ndarray,
        state: StreamState[SubsamplingState],
        rows: np.ndarray,
        flush: np.ndarray | None = None,
    ) -> Tokens:
        return self.decoder.decode_chunk(encoded, counts, state.decoder, rows, flush)

    def _subsample(
        self, mel: np.ndarray, frames: list[int], memory: SubsamplingState, rows: np.ndarray, moves: np.ndarray
    ) -> np.ndarray:
        """mel [B, 8C, F] -> what the subsampling projects, [B * C, channels * bands]; zeros after a row's last step."""
        chunk = mel.shape[1] // STEP_FRAMES
        pieces = [
            memory.hear(row, mel[place, :count], keep=moves[place])
            for place, (row, count) in enumerate(zip(rows, frames, strict=True))
        ]
        return self._front.chunks(pieces, chunk).reshape(len(rows) * chunk, -1)
