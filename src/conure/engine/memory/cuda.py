"""The memory that a model needs on a GPU, computed before it is allocated."""

from __future__ import annotations

from functools import partial

import torch

from conure.engine.backends.registry import OpenedModel
from conure.engine.lanes.clips import GPU_BATCH_SECONDS
from conure.engine.lanes.cuda_lane import step_sizes
from conure.engine.lanes.segment_lane import BATCH_SECONDS
from conure.engine.lanes.window_lane import live_contexts
from conure.engine.memory.plan import ClipNeed, ModelNeed, StreamNeed
from conure.engine.memory.step_memory import (
    captured_buffer_bytes,
    captured_step_bytes,
    clip_bytes,
    position_bytes,
    step_bytes,
    window_bytes,
)
from conure.engine.plan import Plan
from conure.engine.scheduler import MAX_ROWS
from conure.models.config import NetworkConfig
from conure.models.encoder_state import EncoderState
from conure.vad.silero_torch import SileroRows

__all__ = ["decoder_bytes", "gpu_model_need"]

MAX_SLOTS = 16_384
ELEMENT_SIZE = torch.bfloat16.itemsize
"""Bytes of an encoder's number on a GPU."""


def gpu_model_need(opened: OpenedModel, model: str, plan: Plan) -> ModelNeed:
    """`model`: its name in the plan."""
    config = opened.checkpoint.config
    streams = _stream_need(opened, config, plan.max_streams) if model in plan.live_models else None
    batch_bytes = partial(clip_bytes, config, ELEMENT_SIZE)
    clips = ClipNeed(batch_bytes, int(GPU_BATCH_SECONDS)) if model in plan.clip_models else None
    return ModelNeed(model, opened.checkpoint.weight_bytes(ELEMENT_SIZE), streams, clips)


def decoder_bytes(config: NetworkConfig) -> int:
    """A slot of the decoder's state, which is float32 on all devices."""
    numbers = 2 * config.predictor_layers * config.predictor_width + config.joint_width
    return torch.float32.itemsize * numbers + 2 * torch.long.itemsize


def _stream_need(opened: OpenedModel, config: NetworkConfig, slots: int | None) -> StreamNeed:
    decoder = decoder_bytes(config)
    if opened.cuda_model:
        return _captured_need(config, decoder, slots)
    if opened.stream_runner:
        return _chunk_need(config, decoder, slots)
    if opened.window_runner:
        contexts = live_contexts(config.encoder.contexts).values()
        steps = max(context.left + (context.chunk or 0) + context.right for context in contexts)
        row = window_bytes(config, ELEMENT_SIZE, steps)
        return StreamNeed(decoder, MAX_SLOTS, slots, row, MAX_ROWS, fixed_bytes=2 * decoder)
    # One long utterance takes more than many short ones.
    return StreamNeed(0, MAX_SLOTS, slots, fixed_bytes=clip_bytes(config, ELEMENT_SIZE, 1, BATCH_SECONDS))


def _chunk_need(config: NetworkConfig, decoder: int, slots: int | None) -> StreamNeed:
    """Fixed are the scratch slot, an initial decoder state, and the position tables of every chunk."""
    encoder, past, chunks = config.encoder, _past(config), _chunks(config)
    slot = EncoderState.row_bytes(encoder, past, ELEMENT_SIZE) + decoder
    positions = sum(position_bytes(encoder, ELEMENT_SIZE, past + 2 * chunk) for chunk in chunks)
    row = step_bytes(config, ELEMENT_SIZE, max(chunks))
    return StreamNeed(slot, MAX_SLOTS, slots, row, MAX_ROWS, fixed_bytes=slot + decoder + positions)


def _captured_need(config: NetworkConfig, decoder: int, slots: int | None) -> StreamNeed:
    """Captured steps share their temporary memory, and each has its own buffers. Large steps are limited by
    MAX_STEP_FRAMES of `lanes/cuda_lane.py`."""
    encoder, past, chunks = config.encoder, _past(config), _chunks(config)
    slot = EncoderState.row_bytes(encoder, past, ELEMENT_SIZE) + decoder + SileroRows.row_bytes()
    positions = sum(position_bytes(encoder, ELEMENT_SIZE, past + 2 * chunk) for chunk in chunks)
    sizes = {chunk: step_sizes(chunk, slots or MAX_SLOTS) for chunk in chunks}
    buffers = sum(sum(sizes[chunk]) * captured_buffer_bytes(config, chunk) for chunk in chunks)
    step, rows = max(
        (sizes[chunk][-1] * captured_step_bytes(config, ELEMENT_SIZE, chunk), sizes[chunk][-1]) for chunk in chunks
    )
    fixed = slot + decoder + positions + buffers
    return StreamNeed(slot, MAX_SLOTS, slots, step // rows, rows, fixed_bytes=fixed)


def _past(config: NetworkConfig) -> int:
    return config.encoder.max_past


def _chunks(config: NetworkConfig) -> list[int]:
    return [context.right + 1 for context in config.encoder.contexts]
