"""Folded layers have the results of `conformer.Layer`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conure.models.config import AttentionContext, EncoderConfig
from conure.models.folded_encoder import FoldedEncoder
from tests.models.networks import OFFLINE, STREAMING, mel, network

LOCAL = replace(OFFLINE, local=True, contexts=(AttentionContext(20, 20),))
NO_BIAS = replace(OFFLINE, bias=False)


@pytest.mark.parametrize("encoder", [OFFLINE, NO_BIAS, LOCAL, STREAMING], ids=["offline", "no bias", "local", "causal"])
@torch.inference_mode()
def test_folded_layers_equal_the_reference(encoder: EncoderConfig) -> None:
    net = network(encoder).encoder
    folded = FoldedEncoder(net)
    for lengths in ([411, 200, 97, 8, 1], [30]):
        whole, frames = mel(lengths)
        expected, counts = net(whole, frames)
        got, folded_counts = folded(whole, frames)
        assert counts.tolist() == folded_counts.tolist()
        for row, count in enumerate(counts.tolist()):
            torch.testing.assert_close(got[row, :count], expected[row, :count], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_cached_positions_serve_any_reach() -> None:
    net = network(OFFLINE).encoder
    folded = FoldedEncoder(net)
    for first, last in ((3, -3), (300, -299), (83, -13), (5000, -5000)):
        for got, expected in zip(folded.positions(first, last), net.positions(first, last), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
