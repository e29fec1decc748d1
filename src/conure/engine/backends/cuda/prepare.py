"""Captures the graphs of a model on a GPU before the first request arrives."""

from __future__ import annotations

from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.cuda.graph_decoder import GraphDecoder
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.lanes.clips import GPU_BATCH_SECONDS
from conure.engine.lanes.cuda_lane import CudaLane
from conure.engine.memory.plan import CLIP_SECONDS
from conure.text.tokenizer import Tokenizer

__all__ = ["open_cuda_lane", "capture_clip_decoder"]


def open_cuda_lane(runner: CudaStreamModel, slots: int, tokenizer: Tokenizer) -> CudaLane:
    lane = CudaLane(runner, slots, tokenizer)
    lane.capture_steps()
    return lane


def capture_clip_decoder(runner: ClipRunner) -> None:
    """Captures the decoding loops of transducers on a GPU; CTC heads need no loop."""
    if isinstance(runner.decoder, GraphDecoder):
        runner.decoder.prepare(int(GPU_BATCH_SECONDS) // CLIP_SECONDS)
