"""Subsampling in ONNX Runtime: the reference implementation of `NativeSubsampling`.

Mel is processed in pieces, because the activations of the convolutions are 32 times its size. Each piece begins some
steps earlier, and the steps that lack their past are dropped. That is faster than carrying the state of each
convolution.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.convert.graph_names import SUBSAMPLING_GRAPH_FILE
from conure.models.config import STEP_FRAMES, EncoderConfig

__all__ = ["PIECE_STEPS", "OnnxSubsampling"]

PIECE_STEPS = 64
"""Encoder steps (5 s) of one run."""


class OnnxSubsampling:
    """Opens the graph of a converted model; same methods as `NativeSubsampling`."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self._session = open_session(folder / SUBSAMPLING_GRAPH_FILE, threads)
        self._lead = 2 if config.causal_subsampling else 1
        self.width: int = self._session.get_outputs()[0].shape[2]

    def subsample_clip(self, mel: np.ndarray, count: int) -> np.ndarray:
        x = np.empty((count, self.width), np.float32)
        for begin in range(0, count, PIECE_STEPS):
            overlap = min(begin, self._lead)
            piece = mel[(begin - overlap) * STEP_FRAMES : (begin + PIECE_STEPS) * STEP_FRAMES]
            steps = self._run(piece[None])[0, overlap : overlap + PIECE_STEPS]
            x[begin : begin + len(steps)] = steps
        return x

    def subsample_chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray:
        """Runs pieces of equal size together, PIECE_STEPS at a time."""
        x = np.zeros((len(pieces), chunk, self.width), np.float32)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (overlap, mel) in enumerate(pieces):
            groups[overlap, len(mel)].append(index)
        batch_size = max(PIECE_STEPS // chunk, 1)
        for (overlap, _), group in groups.items():
            for begin in range(0, len(group), batch_size):
                batch = group[begin : begin + batch_size]
                steps = self._run(np.stack([pieces[index][1] for index in batch]))[:, overlap:]
                x[batch, : steps.shape[1]] = steps
        return x

    def _run(self, mel: np.ndarray) -> np.ndarray:
        """mel [B, T, F] -> [B, S, channels * bands]"""
        steps: np.ndarray = self._session.run(["x"], {"mel": mel})[0]
        return steps
