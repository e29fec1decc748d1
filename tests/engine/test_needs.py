"""The stated need of each kind of live model is the peak memory of its lane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.engine.backends.registry import OpenedModel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.decoder import TorchDecoderState
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.engine.lanes.segment_lane import BATCH_SECONDS
from conure.engine.lanes.window_lane import live_contexts
from conure.engine.memory.needs import model_need
from conure.engine.memory.plan import StreamNeed
from conure.engine.memory.step_memory import clip_bytes, step_bytes
from conure.engine.plan import Plan
from conure.models.config import STEP_FRAMES, AttentionContext
from conure.models.network import Network
from tests.engine.live_bytes import LiveBytes
from tests.engine.live_model import talking_network
from tests.models.networks import OFFLINE, checkpoint_of, network

CARD, CPU = torch.device("cuda"), torch.device("cpu")
PLAN = Plan(live_models=("model",), max_streams=7)
RNNT: dict[str, object] = {"predictor_width": 16, "predictor_layers": 2, "joint_width": 16}
UNIFIED = replace(
    OFFLINE,
    channels=32,
    style="chunked_limited_with_rc",
    contexts=(AttentionContext(), AttentionContext(9, 2, 2), AttentionContext(9, 4, 7)),
)


def needed(opened: OpenedModel) -> StreamNeed:
    need = model_need(opened, "model", PLAN)
    assert need.streams
    assert need.streams.requested == 7
    assert need.clips is None
    assert need.weights == opened.checkpoint.weight_bytes(2)
    return need.streams


def windowed() -> tuple[Network, TorchWindowRunner]:
    net = network(UNIFIED, **RNNT)
    return net, TorchWindowRunner(net, LogMel(net.config.mel), CPU, torch.bfloat16)


def test_chunks() -> None:
    """The lane's state is the slots, the scratch slot, and an initial decoder state."""
    net = talking_network()
    runner = TorchStreamRunner(net, LogMel(net.config.mel), CPU, torch.bfloat16)
    need = needed(OpenedModel(checkpoint_of(net), CARD, stream_runner=runner))
    state = runner.allocate(8)
    assert isinstance(state.decoder, TorchDecoderState)
    for chunk in (1, 2, 4, 7, 14):
        mel, frames = torch.zeros(1, STEP_FRAMES * chunk, 32), np.array([STEP_FRAMES * chunk])
        runner.encode_chunk(mel, frames, state, np.array([0]))
        assert need.step_bytes >= step_bytes(net.config, 2, chunk)
    tensors = [*vars(state.decoder.state).values(), *vars(state.decoder.initial).values()]
    tensors += {id(p.untyped_storage()): p for table in runner._positions.values() for p in table}.values()
    kept = state.encoder.bytes + sum(tensor.nbytes for tensor in tensors)
    assert kept <= need.bytes(7) - 7 * need.step_bytes <= 1.1 * kept


def test_windows() -> None:
    net, runner = windowed()
    need = needed(OpenedModel(checkpoint_of(net), CARD, window_runner=runner))
    context = live_contexts(net.config.encoder.contexts)[880]
    steps = context.left + (context.chunk or 0) + context.right
    rows, frames = 6, steps * STEP_FRAMES
    with LiveBytes([*net.parameters(), *net.buffers()]) as live:
        runner.encode(torch.zeros(rows, frames, 32), np.full(rows, frames), np.full(rows, context.left), context)
    assert live.most <= rows * need.step_bytes


@pytest.mark.parametrize(("rows", "seconds"), [(60, 1.0), (12, 5.0), (2, 30.0), (1, BATCH_SECONDS)])
def test_whole_utterances(rows: int, seconds: float) -> None:
    net = network(OFFLINE, **RNNT)
    runner = TorchClipRunner(net, LogMel(net.config.mel), CPU)
    need = needed(OpenedModel(checkpoint_of(net), CARD, runner))
    assert need.slot_bytes == need.step_bytes == 0
    assert clip_bytes(net.config, 2, rows, seconds) <= need.bytes(1)
