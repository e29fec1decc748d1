"""Runs a converted network on clips in ONNX Runtime.

Rows are encoded one by one, each as long as it is. They are subsampled
in pieces: the convolutions' activations are 32 times the size of the mel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conure.cores import cores
from conure.engine.converted import Converted, read_converted
from conure.engine.converted_decoder import open_decoder
from conure.engine.device import CPU
from conure.engine.graph_names import AROUND, ENCODER_FILE, FRONT_FILE, REACH, around
from conure.engine.positions import position_tables
from conure.engine.sessions import open_session
from conure.models.config import STEP_FRAMES, AttentionContext
from conure.models.slices import Slices

__all__ = ["OnnxRunner"]

PIECE_STEPS = 64
"""Encoder steps (5 s) subsampled at a time."""


class OnnxRunner:
    """Opens the folder of a converted checkpoint; `checkpoint` is it without its tensors."""

    device = CPU

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder = folder
        converted = read_converted(folder)
        self.checkpoint = converted.checkpoint
        self.config = self.checkpoint.config
        self.features = converted.front()
        threads = threads or cores()
        self.decoder = open_decoder(converted)
        self.front, self.encoder = (open_session(folder / name, threads) for name in (FRONT_FILE, ENCODER_FILE))
        self._positions = _LongPositions(converted)
        self.description = f"onnx {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def encode(
        self, samples: np.ndarray, lengths: np.ndarray, prompts: np.ndarray | None = None
    ) -> Slices[tuple[np.ndarray, np.ndarray]]:
        """A slice is a row."""
        if self.config.prompts and prompts is None:
            raise ValueError("this model needs a prompt slot for every row")
        mel, frames = self.features(samples, lengths)
        counts = self.steps(frames)
        encoded = np.zeros((len(counts), max(int(counts.max()), 1), self.config.encoder.width), np.float32)
        for row, count in enumerate(counts.tolist()):
            if count == 0:
                continue
            yield
            slot = None if prompts is None else prompts[row : row + 1]
            encoded[row, :count] = self.encode_one(mel[row : row + 1, : max(int(frames[row]), 1)], count, slot)
        return encoded, counts

    def encode_one(
        self, mel: np.ndarray, count: int, slot: np.ndarray | None, context: AttentionContext | None = None
    ) -> np.ndarray:
        """mel [1, T, F], its steps, prompt [1] -> [count, D]; a context for unified networks alone."""
        given = {"x": self._subsample(mel, count)} | self._positions.beyond(count)
        if self.config.prompts and slot is not None:
            given["prompts"] = slot
        if context is not None:
            given[AROUND] = around(context)
        encoded: np.ndarray = self.encoder.run(["encoded"], given)[0][0]
        return encoded

    def steps(self, frames: np.ndarray) -> np.ndarray:
        """Encoder steps that mel frames give, as Subsampling.out_steps has it."""
        for _ in range(3):
            frames = (frames + (2 if self.config.encoder.causal_subsampling else 1)) // 2
        return frames

    def _subsample(self, mel: np.ndarray, count: int) -> np.ndarray:
        """mel [1, T, F] -> what the subsampling projects, [1, count, C].

        A piece begins a little earlier, and the steps that the missing past makes wrong are dropped.
        """
        lead = 2 if self.config.encoder.causal_subsampling else 1
        x = np.empty((1, count, self.front.get_outputs()[0].shape[2]), np.float32)
        for begin in range(0, count, PIECE_STEPS):
            lost = min(begin, lead)
            piece = mel[:, (begin - lost) * STEP_FRAMES : (begin + PIECE_STEPS) * STEP_FRAMES]
            steps = self.front.run(["x"], {"mel": piece})[0][:, lost : lost + PIECE_STEPS]
            x[:, begin : begin + steps.shape[1]] = steps
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
            for index, weight in enumerate(self.converted.position_weights()):
                kept = position_tables(self.converted.levels, weight, encoder.heads, self.reach)
                self.tables |= {f"{name}.{index}": table for name, table in kept.items()}
        return self.tables
