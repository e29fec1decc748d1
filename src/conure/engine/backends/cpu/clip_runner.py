"""Runs a converted network on clips, in native kernels or ONNX Runtime. Short clips are encoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from conure.cpu_count import core_count
from conure.engine.backends.cpu.decoder import open_decoder
from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.engine.backends.cpu.native_clip_encoder import NativeClipEncoder
from conure.engine.backends.cpu.subsampling import open_subsampling
from conure.engine.backends.device import CPU
from conure.engine.convert.converted_folder import ConvertedModel, read_converted
from conure.models.config import AttentionContext
from conure.models.preemptible import Preemptible
from conure.native.library import has_native_kernels

__all__ = ["CpuClipRunner"]

MAX_BATCH_STEPS = 512
"""Encoder steps (41 s) of clips that are encoded together; larger products are not faster per step."""


class ClipEncoder(Protocol):
    def encode(
        self,
        x: np.ndarray,
        counts: Sequence[int],
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[np.ndarray]:
        """See `NativeClipEncoder.encode`."""
        ...


class CpuClipRunner:
    """Opens the folder of a converted model. `checkpoint` has no tensors."""

    device = CPU

    def __init__(self, folder: Path, threads: int | None = None, *, kernels: bool = True) -> None:
        """Uses ONNX Runtime without `kernels` or if the native kernels are not available."""
        self.folder = folder
        converted = read_converted(folder)
        self.checkpoint = converted.checkpoint
        self.config = self.checkpoint.config
        self.feature_extractor = converted.feature_extractor()
        threads = threads or core_count()
        self.decoder = open_decoder(converted, threads, kernels=kernels)
        self._subsampling = open_subsampling(folder, self.config.encoder, threads, kernels=kernels)
        native = kernels and has_native_kernels() and Int8Weights.exists_in(folder)
        self.encoder = _native_encoder(converted, threads) if native else _onnx_encoder(converted, threads)
        kind = "native" if native else "onnx"
        self.description = f"{kind} {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def encode(
        self, samples: np.ndarray, lengths: np.ndarray, prompts: np.ndarray | None = None
    ) -> Preemptible[tuple[np.ndarray, np.ndarray]]:
        mel, frames = self.feature_extractor(samples, lengths)
        return (yield from self.encode_mel(mel, frames, prompts))

    def encode_mel(
        self,
        mel: np.ndarray,
        frames: np.ndarray,
        prompts: np.ndarray | None = None,
        context: AttentionContext | None = None,
    ) -> Preemptible[tuple[np.ndarray, np.ndarray]]:
        """mel [B, T, F], frames [B], language prompts [B] -> encoded [B, S, D], counts [B].

        Only unified networks accept a context.
        """
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a language prompt for every row")
        counts = self.steps(frames)
        encoded = np.zeros((len(counts), max(int(counts.max()), 1), self.config.encoder.width), np.float32)
        for rows in _row_groups(counts.tolist()):
            yield
            steps = counts[rows].tolist()
            x = [
                self._subsampling.subsample_clip(mel[row, : max(int(frames[row]), 1)], count)
                for row, count in zip(rows, steps, strict=True)
            ]
            row_prompts = None if prompts is None or not self.config.prompts else prompts[rows]
            y = yield from self.encoder.encode(np.concatenate(x), steps, row_prompts, context)
            for row, part in zip(rows, np.split(y, np.cumsum(steps)[:-1]), strict=True):
                encoded[row, : len(part)] = part
        return encoded, counts

    def steps(self, frames: np.ndarray) -> np.ndarray:
        """Number of encoder steps for mel frames, like `Subsampling.out_steps`."""
        for _ in range(3):
            frames = (frames + (2 if self.config.encoder.causal_subsampling else 1)) // 2
        return frames


def _native_encoder(converted: ConvertedModel, threads: int) -> ClipEncoder:
    return NativeClipEncoder(Int8Weights(converted.folder), converted.checkpoint.config.encoder, threads)


def _onnx_encoder(converted: ConvertedModel, threads: int) -> ClipEncoder:
    from conure.engine.backends.cpu.onnx_clip_encoder import OnnxClipEncoder  # noqa: PLC0415  it loads ONNX Runtime

    return OnnxClipEncoder(converted, threads)


def _row_groups(counts: Sequence[int]) -> Iterator[list[int]]:
    """Groups rows that are encoded together, in order; rows without steps are skipped."""
    rows: list[int] = []
    for row, count in enumerate(counts):
        if rows and sum(counts[row] for row in rows) + count > MAX_BATCH_STEPS:
            yield rows
            rows = []
        if count > 0:
            rows.append(row)
    if rows:
        yield rows
