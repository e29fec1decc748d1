"""Subsamples in ONNX Runtime: the plain twin of `KernelFront`.

Mel is taken in pieces: the convolutions' activations are 32 times its size. Each begins a little earlier, and the steps
that the missing past makes wrong are dropped. That is faster than to take up the convolutions where they ended: nothing
stands between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conure.engine.backends.cpu.onnx_session import open_session
from conure.engine.convert.graph_names import FRONT_FILE
from conure.models.config import STEP_FRAMES, EncoderConfig

__all__ = ["PIECE_STEPS", "OnnxSubsampling"]

PIECE_STEPS = 64
"""Encoder steps (5 s) subsampled at a time."""


class OnnxSubsampling:
    """Opens the graph of a converted folder; methods are those of `KernelFront`."""

    def __init__(self, folder: Path, config: EncoderConfig, threads: int) -> None:
        self._session = open_session(folder / FRONT_FILE, threads)
        self._lead = 2 if config.causal_subsampling else 1
        self.width: int = self._session.get_outputs()[0].shape[2]

    def clip(self, mel: np.ndarray, count: int) -> np.ndarray:
        x = np.empty((count, self.width), np.float32)
        for begin in range(0, count, PIECE_STEPS):
            lost = min(begin, self._lead)
            piece = mel[(begin - lost) * STEP_FRAMES : (begin + PIECE_STEPS) * STEP_FRAMES]
            steps = self._run(piece[None])[0, lost : lost + PIECE_STEPS]
            x[begin : begin + len(steps)] = steps
        return x

    def chunks(self, pieces: Sequence[tuple[int, np.ndarray]], chunk: int) -> np.ndarray:
        """Pieces of one size go together, some at a time."""
        x = np.zeros((len(pieces), chunk, self.width), np.float32)
        places: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, (lost, mel) in enumerate(pieces):
            places[lost, len(mel)].append(place)
        some = max(PIECE_STEPS // chunk, 1)
        for (lost, _), group in places.items():
            for begin in range(0, len(group), some):
                together = group[begin : begin + some]
                steps = self._run(np.stack([pieces[place][1] for place in together]))[:, lost:]
                x[together, : steps.shape[1]] = steps
        return x

    def _run(self, mel: np.ndarray) -> np.ndarray:
        """mel [B, T, F] -> [B, S, channels * bands]"""
        steps: np.ndarray = self._session.run(["x"], {"mel": mel})[0]
        return steps
