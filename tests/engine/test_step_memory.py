"""The estimated memory of steps is never below the tensors' peak, and at most twice as much."""

from __future__ import annotations

import gc
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.audio.mel import MelConfig
from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import CudaStreamStep
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.decoder import TorchDecoderState
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.lanes.clips import transcribe_batch
from conure.engine.memory.cuda import decoder_bytes
from conure.engine.memory.step_memory import captured_buffer_bytes, captured_step_bytes, clip_bytes, step_bytes
from conure.models.config import STEP_FRAMES, AttentionContext, EncoderConfig, NetworkConfig
from conure.models.encoder_state import EncoderState
from conure.models.network import Network
from conure.models.preemptible import run_to_end
from tests.engine.live_bytes import LiveBytes
from tests.engine.live_model import talking_network
from tests.models.networks import OFFLINE, STREAMING, checkpoint_of, network

CPU = torch.device("cpu")
CTC: dict[str, object] = {"ctc": True}
RNNT: dict[str, object] = {"predictor_width": 32, "predictor_layers": 1, "joint_width": 32}
LARGER = EncoderConfig(features=80, layers=4, width=256, heads=4, channels=64)
SHORT = AttentionContext(32, 32)
CASES: dict[str, tuple[EncoderConfig, dict[str, object], int, float]] = {
    "features": (OFFLINE, RNNT, 3, 2),
    "features of long ones": (replace(OFFLINE, local=True, contexts=(SHORT,)), CTC, 1, 150),
    "subsampling": (LARGER, CTC, 4, 5),
    "subsampling of longer ones": (LARGER, CTC, 2, 20),
    "causal subsampling": (replace(STREAMING, channels=64), RNNT, 4, 3),
    "causal subsampling in parts": (
        replace(STREAMING, channels=64, local=True, contexts=(SHORT,), layers=1),
        CTC,
        1,
        150,
    ),
    "hidden layers": (replace(OFFLINE, width=1024, heads=8, layers=1, channels=4), CTC, 2, 8),
    "attention": (OFFLINE, CTC, 1, 150),
    "attention of both": (LARGER, CTC, 2, 60),
    "local attention": (
        replace(OFFLINE, width=1024, heads=8, layers=1, channels=4, local=True, contexts=(SHORT,)),
        CTC,
        1,
        20,
    ),
    "global steps": (
        replace(OFFLINE, local=True, contexts=(SHORT,), global_tokens=8, global_spacing=4, global_separate=True),
        CTC,
        1,
        60,
    ),
    "a large vocabulary": (OFFLINE, CTC | {"vocabulary": 8_000}, 2, 5),
}


def network_of(encoder: EncoderConfig, heads: dict[str, object]) -> Network:
    mel = MelConfig(features=encoder.features)
    net = Network(NetworkConfig(encoder=encoder, mel=mel, **heads)).eval()  # type: ignore[arg-type]
    if net.joint:
        with torch.no_grad():
            net.joint.head.bias[net.config.blank] += 9.0  # a step a symbol would take a while
    return net


def counted(runner: TorchClipRunner | TorchStreamRunner) -> LiveBytes:
    """All tensors but weights."""
    net = runner.network
    return LiveBytes([*net.parameters(), *net.buffers(), *runner.feature_extractor.buffers()])


@pytest.fixture(autouse=True)
def features_as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogMel, "log_mel", LogMel.log_mel_reference)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_clips(case: str) -> None:
    encoder, heads, rows, seconds = CASES[case]
    runner = TorchClipRunner(network_of(encoder, heads), LogMel(MelConfig(features=encoder.features)), CPU)
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, int(seconds * 16_000))).astype(np.float32)
    with counted(runner) as live:
        run_to_end(transcribe_batch(runner, list(noise)))
    assert live.most <= clip_bytes(runner.network.config, 4, rows, seconds) <= 2 * live.most


@pytest.mark.parametrize("encoder", [replace(OFFLINE, local=True, contexts=(SHORT,)), STREAMING, LARGER])
def test_clip_bytes_are_monotone(encoder: EncoderConfig) -> None:
    config = network_of(encoder, CTC).config
    for sizes in ([(rows, 30.0) for rows in range(1, 20)], [(2, seconds / 4) for seconds in range(1, 900)]):
        assert all(one <= other for one, other in pairwise(clip_bytes(config, 2, *size) for size in sizes))


@pytest.mark.parametrize("chunk", [1, 2, 14])
@pytest.mark.parametrize("channels", [8, 64])
def test_a_step_of_streams(chunk: int, channels: int) -> None:
    net = network_of(replace(STREAMING, channels=channels), RNNT)
    runner, rows = TorchStreamRunner(net, LogMel(net.config.mel), CPU), 4
    state, frames = runner.allocate(rows), STEP_FRAMES * chunk
    mel, given, every = torch.zeros(rows, frames, 32), np.full(rows, frames), np.arange(rows)
    runner.encode_chunk(mel, given, state, every)  # makes the table of positions
    live, memory = counted(runner), state.encoder
    live.leave_out([*memory.subsampling, memory.keys, memory.values, memory.convolution, *runner._positions[chunk]])
    with live:
        runner.encode_chunk(mel, given, state, every)
    assert live.most <= rows * step_bytes(net.config, 4, chunk)


@pytest.mark.parametrize("chunk", [1, 14])
@pytest.mark.parametrize("large", [False, True], ids=["small", "larger"])
@torch.inference_mode()
def test_a_captured_step_takes_no_more_than_planned(chunk: int, large: bool) -> None:
    net = network_of(LARGER_STREAMING, RNNT) if large else talking_network()
    front, rows = LogMel(net.config.mel), 4
    front.log_mel = front.log_mel_reference  # type: ignore[method-assign]
    runner = CudaStreamModel(net, front, CPU, recorder=no_capture)
    state = CudaStreamState.allocate(runner, rows)
    step = CudaStreamStep(runner, state, rows, chunk)
    step._run()  # what is made once is there
    # type() asks an object nothing; some of those around warn when they are asked.
    live = LiveBytes(cast(torch.Tensor, one) for one in gc.get_objects() if issubclass(type(one), torch.Tensor))
    with live:
        step._run()
    planned = rows * captured_step_bytes(runner.config, 4, chunk)
    assert planned / 4 < live.most <= planned
    given = [*vars(step._inputs).values(), *vars(step._results).values(), *vars(step._loop.cursor).values()]
    given += [step._loop.steps, step._loop.counts, step._loop.decoded]
    flag = step._loop.unfinished.nbytes
    assert sum(tensor.nbytes for tensor in given) - flag == rows * captured_buffer_bytes(runner.config, chunk)


def test_slot_bytes_are_exact() -> None:
    for net in (talking_network(), network_of(LARGER_STREAMING, RNNT)):
        runner = TorchStreamRunner(net, LogMel(net.config.mel), CPU, torch.bfloat16)
        state, past = runner.allocate(1), max(context.left for context in net.config.encoder.contexts)
        assert state.encoder.bytes == EncoderState.row_bytes(net.config.encoder, past, 2)
        assert isinstance(state.decoder, TorchDecoderState)
        decoder = state.decoder.state
        tensors = (decoder.hidden, decoder.cell, decoder.predicted, decoder.ahead, decoder.decoded)
        assert sum(tensor.nbytes for tensor in tensors) == decoder_bytes(net.config)


LARGER_STREAMING = replace(STREAMING, features=80, layers=2, width=64, kernel=5, channels=16)


@pytest.mark.parametrize("encoder", [STREAMING, OFFLINE])
def test_weight_bytes_are_exact(encoder: EncoderConfig) -> None:
    """Except for the norms' unused counters."""
    net = network(encoder, **RNNT, prompts=3)
    expected = checkpoint_of(net).weight_bytes(2)
    runner = TorchClipRunner(net, LogMel(net.config.mel), CPU, torch.bfloat16)
    placed = runner.network.state_dict()
    assert expected == sum(t.nbytes for name, t in placed.items() if not name.endswith("num_batches_tracked"))
