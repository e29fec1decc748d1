"""8-bit products equal those of the quantised values in float32, and are close to those without quantisation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from conure.models.folded_encoder import FoldedEncoder
from conure.models.fp8_linear import PRODUCTS, Fp8Linear, quantise
from tests.models.networks import OFFLINE, mel, network


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_product_equals_the_reference(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48, bias=bias)
    linear.weight *= torch.logspace(-3, 3, 48)[:, None]  # outputs of all magnitudes
    x = (torch.randn(2, 7, 64) * torch.logspace(-3, 3, 7)[:, None]).bfloat16()
    product = Fp8Linear(linear)
    got, expected = product(x).float(), product.forward_reference(x)
    size = x.float().norm(dim=-1, keepdim=True) * linear.weight.norm(
        dim=-1
    )  # values near 0 are differences of large ones
    added = torch.zeros(48) if linear.bias is None else linear.bias.abs()
    assert ((got - expected).abs() <= 2**-8 * (expected.abs() + size / 100)).all()
    assert ((expected - linear(x.float())).abs() <= 0.03 * size + 2**-8 * added).all()


@torch.inference_mode()
def test_rows_of_zeros_give_the_bias() -> None:
    product = Fp8Linear(nn.Linear(32, 16))
    assert torch.equal(product(torch.zeros(3, 32, dtype=torch.bfloat16)), product.bias.expand(3, -1))


@torch.inference_mode()
def test_an_encoder_in_8_bits_is_close_to_the_reference() -> None:
    net = network(replace(OFFLINE, width=64)).encoder
    whole, frames = mel([411, 97])
    expected, counts = net(whole, frames)
    folded = FoldedEncoder(net).bfloat16()
    half, _ = folded(whole.bfloat16(), frames)
    quantise(folded)
    assert all(isinstance(getattr(layer, name), Fp8Linear) for layer in folded.layers for name in PRODUCTS)
    eight, _ = folded(whole.bfloat16(), frames)
    valid = torch.arange(expected.shape[1]) < counts[:, None]
    distances = [float((got.float() - expected)[valid].norm() / expected[valid].norm()) for got in (half, eight)]
    assert distances[0] < distances[1] < 0.15
