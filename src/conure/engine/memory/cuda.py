"""What models need of a card's memory: everything that is on it, counted beforehand."""

from __future__ import annotations

from functools import partial

import torch

from conure.engine.backends.registry import OpenedModel
from conure.engine.lanes.clips import CARD_BATCH_SECONDS
from conure.engine.lanes.cuda_lane import sizes_of
from conure.engine.lanes.segment_lane import BATCH_SECONDS
from conure.engine.lanes.window_lane import live_contexts
from conure.engine.memory.plan import Clips, Need, Streams
from conure.engine.memory.step_memory import (
    clip_bytes,
    position_bytes,
    recorded_turn_bytes,
    standing_turn_bytes,
    turn_bytes,
    window_bytes,
)
from conure.engine.plan import Plan
from conure.engine.scheduler import MOST_ROWS
from conure.models.config import NetworkConfig
from conure.models.encoder_state import EncoderState
from conure.vad.silero_torch import SileroRows

__all__ = ["decoder_bytes", "need_of_card"]

MOST_SLOTS = 16_384
SIZE = torch.bfloat16.itemsize
"""Of an encoder's number on a card."""


def need_of_card(opened: OpenedModel, model: str, plan: Plan) -> Need:
    """Of a model that was asked for by that name."""
    config = opened.checkpoint.config
    streams = _streams_of(opened, config, plan.slots) if model in plan.live else None
    clips = Clips(partial(clip_bytes, config, SIZE), int(CARD_BATCH_SECONDS)) if model in plan.clips else None
    return Need(model, opened.checkpoint.weight_bytes(SIZE), streams, clips)


def decoder_bytes(config: NetworkConfig) -> int:
    """What a row of the decoder takes, which is in float32 everywhere."""
    numbers = 2 * config.predictor_layers * config.predictor_width + config.joint_width
    return torch.float32.itemsize * numbers + 2 * torch.long.itemsize


def _streams_of(opened: OpenedModel, config: NetworkConfig, slots: int | None) -> Streams:
    decoder = decoder_bytes(config)
    if opened.cuda_model:
        return _recorded(config, decoder, slots)
    if opened.stream_runner:
        return _chunked(config, decoder, slots)
    if opened.window_runner:
        contexts = live_contexts(config.encoder.contexts).values()
        steps = max(context.left + (context.chunk or 0) + context.right for context in contexts)
        turn = window_bytes(config, SIZE, steps)
        return Streams(decoder, MOST_SLOTS, slots, turn, MOST_ROWS, fixed=2 * decoder)
    # One long utterance takes more than many short ones.
    return Streams(0, MOST_SLOTS, slots, fixed=clip_bytes(config, SIZE, 1, BATCH_SECONDS))


def _chunked(config: NetworkConfig, decoder: int, slots: int | None) -> Streams:
    """Beside the rows there is a spare one, one that has heard nothing, and the positions for every chunk."""
    encoder, past, chunks = config.encoder, _past(config), _chunks(config)
    row = EncoderState.row_bytes(encoder, past, SIZE) + decoder
    positions = sum(position_bytes(encoder, SIZE, past + 2 * chunk) for chunk in chunks)
    turn = turn_bytes(config, SIZE, max(chunks))
    return Streams(row, MOST_SLOTS, slots, turn, MOST_ROWS, fixed=row + decoder + positions)


def _recorded(config: NetworkConfig, decoder: int, slots: int | None) -> Streams:
    """The same with recorded turns, which share memory while they run, and have each its own buffers. However many
    rows are in a turn, it has no more than MOST_STEPS steps."""
    encoder, past, chunks = config.encoder, _past(config), _chunks(config)
    row = EncoderState.row_bytes(encoder, past, SIZE) + decoder + SileroRows.row_bytes()
    positions = sum(position_bytes(encoder, SIZE, past + 2 * chunk) for chunk in chunks)
    sizes = {chunk: sizes_of(chunk, slots or MOST_SLOTS) for chunk in chunks}
    standing = sum(sum(sizes[chunk]) * standing_turn_bytes(config, chunk) for chunk in chunks)
    turn, rows = max(
        (sizes[chunk][-1] * recorded_turn_bytes(config, SIZE, chunk), sizes[chunk][-1]) for chunk in chunks
    )
    fixed = row + decoder + positions + standing
    return Streams(row, MOST_SLOTS, slots, turn // rows, rows, fixed=fixed)


def _past(config: NetworkConfig) -> int:
    return config.encoder.max_past


def _chunks(config: NetworkConfig) -> list[int]:
    return [context.right + 1 for context in config.encoder.contexts]
