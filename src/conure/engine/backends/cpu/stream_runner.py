"""Runs a converted cache-aware network on streams.

The encoder runs in native kernels if they are available and the network is int8, else as a graph in ONNX Runtime.

Chunks are subsampled like clips, each after the last mel frames of the previous chunk; the overlapping steps are
dropped. That is faster than carrying the state of each convolution.
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

EncoderStateT = TypeVar("EncoderStateT", bound=SubsamplingState)


class StreamEncoder(Protocol[EncoderStateT]):
    """The layers between the subsampling's convolutions and the heads."""

    def allocate(self, rows: int) -> EncoderStateT: ...

    def encode(
        self,
        x: np.ndarray,
        encoder_state: EncoderStateT,
        rows: np.ndarray,
        counts: np.ndarray,
        prompts: np.ndarray | None,
    ) -> np.ndarray:
        """x [B * C, channels * bands] of slots `rows` [B] with `counts` [B] valid steps -> [B * C, D]."""
        ...


class CpuStreamRunner:
    """Opens the folder of a converted cache-aware model. `checkpoint` has no tensors."""

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Uses ONNX Runtime without `kernels` or if the native kernels are not available."""
        converted = read_converted(folder)
        self.checkpoint = converted.checkpoint
        self.config = self.checkpoint.config
        if not self.config.encoder.is_cache_aware:
            raise ValueError("this network is not cache-aware and cannot process streams in chunks")
        self.feature_extractor = converted.feature_extractor()
        threads = threads or core_count()
        self.decoder = open_decoder(converted, threads, kernels=kernels)
        self._subsampling = open_subsampling(folder, self.config.encoder, threads, kernels=kernels)
        native = kernels and has_native_kernels() and Int8Weights.exists_in(folder)
        encoder = NativeStreamEncoder if native else OnnxStreamEncoder
        self._encoder: StreamEncoder[Any] = encoder(folder, self.config.encoder, threads)
        kind = "native" if native else "onnx"
        self.description = f"{kind} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

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
        """Rows without frames are skipped.

        A flushed chunk is written into the rings after the slot's last step, like any other chunk. The rings have space
        for one chunk more than is visible, and the repeated chunk overwrites it.
        """
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a language prompt for every row")
        chunk, encoder_state = mel.shape[1] // STEP_FRAMES, state.encoder
        counts = -(-frames // STEP_FRAMES)
        encoded = np.zeros((len(rows), chunk, self.config.encoder.width), np.float32)
        has_frames = frames > 0
        if not has_frames.any():
            return encoded, counts
        slots, steps = rows[has_frames], counts[has_frames]
        advances = np.ones(len(slots), bool) if flush is None else ~flush[has_frames]
        x = self._subsample(mel[has_frames], frames[has_frames].tolist(), encoder_state, slots, advances)
        step_prompts = None if prompts is None or not self.config.prompts else np.repeat(prompts[has_frames], chunk)
        y = self._encoder.encode(x, encoder_state, slots, steps, step_prompts)
        encoded[has_frames] = y.reshape(-1, *encoded.shape[1:])
        encoder_state.advance(slots[advances], steps[advances])
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
        self,
        mel: np.ndarray,
        frames: list[int],
        encoder_state: SubsamplingState,
        rows: np.ndarray,
        advances: np.ndarray,
    ) -> np.ndarray:
        """mel [B, 8C, F] -> input of the encoder, [B * C, channels * bands]; zeros after a row's last step."""
        chunk = mel.shape[1] // STEP_FRAMES
        pieces = [
            encoder_state.append_frames(row, mel[index, :count], keep=advances[index])
            for index, (row, count) in enumerate(zip(rows, frames, strict=True))
        ]
        return self._subsampling.subsample_chunks(pieces, chunk).reshape(len(rows) * chunk, -1)
