"""Operation counts by formula equal those that torch counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.operations import (
    DECODER_ITERATIONS,
    WINDOW,
    attention,
    clip,
    decoding,
    encoder_step,
    positions,
    products,
    subsampling,
)
from conure.audio.features import LogMel
from conure.audio.mel import MelConfig
from conure.models.config import AttentionContext, EncoderConfig
from conure.models.encoder_state import EncoderState
from conure.models.folded_encoder import FoldedEncoder
from tests.models.networks import OFFLINE, STREAMING, mel, network

FRAMES, ROWS = 403, 3


@torch.inference_mode()
def count(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("encoder", [OFFLINE, STREAMING], ids=["offline", "causal"])
def test_subsampling(encoder: EncoderConfig) -> None:
    net = network(encoder).encoder
    assert count(lambda: net.pre_encode(*mel([FRAMES] * ROWS))) == subsampling(encoder, ROWS, FRAMES).operations


@pytest.mark.parametrize("form", [lambda net: net, FoldedEncoder], ids=["plain", "folded"])
def test_layers(form: Callable[[Any], Any]) -> None:
    net = form(network(OFFLINE).encoder)
    x, counts = net.subsample(*mel([FRAMES] * ROWS))
    steps = x.shape[1]
    with torch.inference_mode():
        net.encode_steps(x, counts)  # the folded form keeps positions from here on
    layer = products(OFFLINE, ROWS * steps).operations + attention(OFFLINE, ROWS, steps, steps, False).operations
    if not isinstance(net, FoldedEncoder):
        layer += positions(OFFLINE, steps).operations
    assert count(lambda: net.encode_steps(x, counts)) == OFFLINE.layers * layer


def test_local_attention() -> None:
    window = 20
    config = replace(OFFLINE, local=True, contexts=(AttentionContext(window, window),))
    net = FoldedEncoder(network(config).encoder)
    x, counts = net.subsample(*mel([FRAMES] * ROWS))
    steps = x.shape[1]
    with torch.inference_mode():
        net.encode_steps(x, counts)
    blocks = ROWS * -(-steps // window)
    layer = products(config, ROWS * steps).operations + attention(config, blocks, window, 3 * window, False).operations
    assert count(lambda: net.encode_steps(x, counts)) == config.layers * layer


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_streaming_step(chunk: int) -> None:
    past, net = 70, network(STREAMING).encoder
    state = EncoderState.allocate(STREAMING, ROWS, past, net.pre_encode.out.weight)
    tables = net.positions(past + chunk - 1, 1 - chunk)
    whole, frames = mel([8 * chunk] * ROWS)
    found = count(lambda: net.step(whole, frames, state, tables))
    stages = encoder_step(STREAMING, ROWS, chunk, past)
    written = attention(STREAMING, ROWS, chunk, past + chunk, False).operations * STREAMING.layers
    front = count(lambda: net.pre_encode.step(whole, frames, ~state.started, net.pre_encode.empty_caches(ROWS, whole)))
    assert found == front + stages["products"].operations + written


def test_features() -> None:
    config = MelConfig()
    found = count(lambda: LogMel(config).log_mel_reference(torch.zeros(ROWS, 512 + 49 * 160)))
    assert found == ROWS * 50 * 2 * 257 * config.features


def test_decoding() -> None:
    heads = network(OFFLINE, predictor_width=16, predictor_layers=2, joint_width=24, durations=(0, 1, 2))
    config, steps, turns = heads.config, 10, 7
    encoded = torch.zeros(ROWS, steps, config.encoder.width)
    predicted, memory = heads.start(ROWS)

    def decode() -> None:
        projected = heads.project(encoded)
        for _ in range(turns):
            heads.score(projected[:, :WINDOW], predicted)
            heads.advance(torch.zeros(ROWS, dtype=torch.long), memory)

    assert count(decode) == decoding(config, ROWS, steps, turns).operations


def test_fused_attention_needs_fewer_bytes_and_operations() -> None:
    heads = network(OFFLINE, predictor_width=16, predictor_layers=1, joint_width=16)
    for seconds in (15.0, 300.0, 3600.0):
        stages = clip(heads.config, 2, seconds)
        fused, written = stages["attention"], stages["attention, bias written"]
        assert fused.operations < written.operations
        assert fused.bytes < written.bytes
        assert (
            stages["decoding"].operations
            == decoding(heads.config, 2, round(seconds * 12.5), round(DECODER_ITERATIONS * seconds)).operations
        )
