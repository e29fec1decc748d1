"""Runs the streaming step of a converted network in ONNX Runtime; features stay in torch.

The graph changes what is remembered of streams where it is (see `export_stream`), so that a turn costs what its
products cost, and the reading of the past that its rows see.

Chunks are subsampled by the graph for clips, each behind the last frames of the chunk before; the steps that these
make again are dropped. That is faster than to take up the convolutions where they ended: nothing stands between them.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.converted import read_converted
from conure.engine.export import FRONT_FILE, STREAM_FILE
from conure.engine.export_stream import AFTER
from conure.engine.onnx_heads import OnnxHeads
from conure.engine.onnx_runner import CORES, PIECE_STEPS
from conure.engine.onnx_stream_state import OnnxStreamMemory
from conure.engine.sessions import open_session
from conure.engine.stream_state import StreamState
from conure.models.config import STEP_FRAMES
from conure.models.network import Heads

__all__ = ["OnnxStreamRunner"]


class OnnxStreamRunner:
    """Opens the folder of a converted cache-aware checkpoint."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        converted = read_converted(folder)
        self.checkpoint = checkpoint = converted.checkpoint
        self.config = checkpoint.config
        if not self.config.encoder.cache_aware:
            raise ValueError("this network cannot be run chunk by chunk")
        self.front = LogMel(self.config.mel, checkpoint.window, checkpoint.filterbank).float()
        threads = threads or CORES
        torch.set_num_threads(1)
        self.heads: Heads = OnnxHeads(checkpoint, folder, threads=1)
        self._front, self._step = (open_session(folder / name, threads) for name in (FRONT_FILE, STREAM_FILE))
        self.description = f"onnx {converted.precision}, {threads} thread{'s' * (threads > 1)}"

    def allocate(self, rows: int) -> StreamState[OnnxStreamMemory]:
        return StreamState.allocate(OnnxStreamMemory(self.config.encoder, rows), self.heads, rows)

    @torch.inference_mode()
    def step(
        self,
        mel: Tensor,
        frames: Tensor,
        state: StreamState[OnnxStreamMemory],
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
        given = dict(memory.places(who, steps, chunk))
        given["x"] = self._subsample(mel[busy].numpy(), frames[busy].tolist(), memory, who)
        if self.config.prompts and prompts is not None:
            given["prompts"] = np.repeat(prompts[busy].numpy(), chunk)
        encoded[busy] = torch.from_numpy(self._encode(given, memory)).view(-1, *encoded.shape[1:])
        memory.move_on(who, steps)
        return encoded, counts

    def _encode(self, given: dict[str, np.ndarray], memory: OnnxStreamMemory) -> np.ndarray:
        """-> [B * C, D]"""
        encoded = np.empty((len(given["x"]), self.config.encoder.width), np.float32)
        binding: Any = self._step.io_binding()
        for name, array in given.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, pool in memory.pools.items():
            binding.bind_ortvalue_input(name, pool)
            binding.bind_ortvalue_output(AFTER + name, pool)
        binding.bind_ortvalue_output("encoded", onnxruntime.OrtValue.ortvalue_from_numpy(encoded))
        self._step.run_with_iobinding(binding)
        return encoded

    def _subsample(self, mel: np.ndarray, frames: list[int], memory: OnnxStreamMemory, rows: np.ndarray) -> np.ndarray:
        """mel [B, 8C, F] -> what the subsampling projects, [B * C, channels * bands]; zeros after a row's last step.

        Rows with pieces of one size go together, some at a time: activations are 32 times the size of the mel.
        """
        chunk = mel.shape[1] // STEP_FRAMES
        x = np.zeros((len(rows), chunk, self._front.get_outputs()[0].shape[2]), np.float32)
        pieces: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)
        for place, (row, count) in enumerate(zip(rows, frames, strict=True)):
            lost, piece = memory.hear(row, mel[place, :count])
            pieces[lost, len(piece)].append((place, piece))
        some = max(PIECE_STEPS // chunk, 1)
        for (lost, _), group in pieces.items():
            for begin in range(0, len(group), some):
                places, together = zip(*group[begin : begin + some], strict=True)
                steps = self._front.run(["x"], {"mel": np.stack(together)})[0][:, lost:]
                x[list(places), : steps.shape[1]] = steps
        return x.reshape(len(rows) * chunk, -1)
