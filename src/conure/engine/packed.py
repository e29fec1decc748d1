"""A network's encoder as the native kernels read it: int8 weights in blocks, in one file.

The file is mapped into memory as it is, so that opening it costs nothing and processes share it. What is folded
into what is as in `onnx_layers`: the scale of scores into queries, halves and batch norms into the weights beside
them. Queries, keys and values are one product, and so are the convolution's values and gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from conure.engine.export import REACH
from conure.engine.export_stream import longest_chunk, longest_past
from conure.engine.onnx_layers import folded_filter
from conure.engine.packed_arrays import PackedArrays, write_arrays
from conure.engine.quantize import LEVELS, Affine
from conure.models.attention import Attention as AttentionModule
from conure.models.config import EncoderConfig
from conure.models.conformer import Layer, SpeakerKernel
from conure.models.network import Network
from conure.native.library import BLOCK, LANES, Attention, Distances, Filter, Norm, Weight, pack

__all__ = ["Packed", "is_packable", "write_packed"]

FILE = "encoder.packed"
SMALLEST = 1e-20
"""A distance whose projection is zero is divided by this."""


def is_packable(network: Network) -> bool:
    """Whether the kernels can run a network of these sizes."""
    config = network.config.encoder
    blocks = (config.width, config.width * config.expansion)
    vectors = (config.width // config.heads, network.encoder.pre_encode.out.in_features)
    return all(size % BLOCK == 0 for size in blocks) and all(size % LANES == 0 for size in vectors)


@torch.inference_mode()
def write_packed(network: Network, folder: Path) -> None:
    write_arrays(folder / FILE, _arrays(network))


class Packed(PackedArrays):
    """Opens what `write_packed` wrote; arrays are views of the file."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where there is none."""
        super().__init__(folder / FILE)

    @staticmethod
    def is_in(folder: Path) -> bool:
        return PackedArrays.are_in(folder / FILE)

    def weight(self, name: str) -> Weight:
        bias = self.array(f"{name}.bias") if f"{name}.bias" in self else None
        return Weight(self.array(f"{name}.values"), self.array(f"{name}.scales"), bias)

    def norm(self, name: str) -> Norm:
        weight, bias, epsilon = (self.array(f"{name}.{part}") for part in ("weight", "bias", "epsilon"))
        return Norm(weight, bias, epsilon.item())

    def attention(self, name: str, config: EncoderConfig) -> Attention:
        shift, table = (self.array(f"{name}.{part}") for part in ("shift", "table"))
        return Attention(shift, table, longest_past(config), longest_chunk(config))

    def distances(self, name: str, heads: int, steps: int) -> Distances:
        """Of clips of so many steps; those of most clips are in the file."""
        shift = self.array(f"{name}.shift")
        if steps <= REACH:
            return Distances(self.array(f"{name}.distances"), self.array(f"{name}.distances.scales"), shift)
        reach = 1 << (steps - 1).bit_length()
        projected = _projected(self.array(f"{name}.position").astype(np.float32), heads, reach, 1 - reach)
        return Distances(*_as_bytes(projected), shift)

    def filter(self, name: str) -> Filter:
        return Filter(self.array(f"{name}.weight"), self.array(f"{name}.bias"))


Arrays = Iterator[tuple[str, np.ndarray]]


def _arrays(network: Network) -> Arrays:
    encoder = network.encoder
    scale = math.sqrt(encoder.config.width) if encoder.config.scale_input else 1.0
    yield from _product("subsampled", Affine.of(encoder.pre_encode.out).times(scale))
    for index, layer in enumerate(cast(list[Layer], list(encoder.layers))):
        for name, array in _layer(layer, encoder.config):
            yield f"{index}.{name}", array
    if "0" in encoder.speaker_kernels:
        wanted, others = (
            cast(SpeakerKernel, kernels["0"]) for kernels in (encoder.speaker_kernels, encoder.background_kernels)
        )
        silent = Affine.of(others.linear2)
        assert others.linear1.bias is not None
        yield from _product("wanted.up", Affine.of(wanted.linear1))
        yield from _product("wanted.down", Affine.of(wanted.linear2))
        yield "silence", nn.functional.linear(others.linear1.bias.float().relu(), silent.weight, silent.bias).numpy()
    if network.prompt is not None:
        first, width = Affine.of(network.prompt.linear1), encoder.config.width
        yield from _product("prompt.up", Affine(first.weight[:, :width], first.bias))
        yield "prompt.table", first.weight[:, width:].T.numpy()
        yield from _product("prompt.down", Affine.of(network.prompt.linear2))


def _layer(layer: Layer, config: EncoderConfig) -> Arrays:
    for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
        yield from _norm(f"norm_{name}", getattr(layer, f"norm_{name}"))
    for name in ("feed_forward1", "feed_forward2"):
        module = getattr(layer, name)
        yield from _product(f"{name}.up", Affine.of(module.linear1))
        yield from _product(f"{name}.down", Affine.of(module.linear2).times(0.5))
    attention, scale = layer.self_attn, layer.self_attn.head_width**-0.5
    u, v = (bias.float().flatten() * scale for bias in (attention.pos_bias_u, attention.pos_bias_v))
    query = Affine.of(attention.linear_q).times(scale).plus(u)
    yield from _product("projected", _joined(query, Affine.of(attention.linear_k), Affine.of(attention.linear_v)))
    yield "attention.shift", (v - u).numpy()
    yield from _attention(attention, config)
    yield from _product("mixed", Affine.of(attention.linear_out))
    yield from _product("gated", _interleaved(Affine.of(layer.conv.pointwise_conv1)))
    weight, bias = folded_filter(layer.conv)
    yield "filter.weight", weight[:, 0].T.numpy()
    yield "filter.bias", bias.numpy()
    if isinstance(layer.conv.batch_norm, nn.LayerNorm):
        yield from _norm("norm_filter", layer.conv.batch_norm)
    yield from _product("filtered", Affine.of(layer.conv.pointwise_conv2))


def _product(name: str, layer: Affine) -> Arrays:
    values, scales = layer.columns(LEVELS)
    yield f"{name}.values", pack(values.numpy())
    yield f"{name}.scales", scales.numpy()
    if layer.bias is not None:
        yield f"{name}.bias", layer.bias.numpy()


def _norm(name: str, module: nn.LayerNorm) -> Arrays:
    yield f"{name}.weight", module.weight.float().numpy()
    yield f"{name}.bias", module.bias.float().numpy()
    yield f"{name}.epsilon", np.array([module.eps], np.float32)


def _joined(*layers: Affine) -> Affine:
    """Their outputs one after the other."""
    biases = [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    return Affine(torch.cat([layer.weight for layer in layers]), torch.cat(biases))


def _interleaved(both: Affine) -> Affine:
    """Of values, then gates: 32 values, their 32 gates, the next 32 values."""
    order = torch.arange(len(both.weight)).view(2, -1, BLOCK // 2).transpose(0, 1).reshape(-1)
    return Affine(both.weight[order], None if both.bias is None else both.bias[order])


def _attention(module: AttentionModule, config: EncoderConfig) -> Arrays:
    """Projections of distances, for clips and, of cache-aware networks, for chunks of streams."""
    weight, heads = module.linear_pos.weight.float().numpy(), module.heads
    values, scales = _as_bytes(_projected(weight, heads, REACH, 1 - REACH))
    yield "attention.distances", values
    yield "attention.distances.scales", scales
    yield "attention.position", weight.astype(np.float16)
    if not config.cache_aware:
        return
    # Zeros follow, for the kernels read whole vectors from any column on.
    past, chunk = longest_past(config), longest_chunk(config)
    table = _projected(weight, heads, past + chunk, 1 - chunk).transpose(0, 2, 1)
    padding = 2 * LANES - table.shape[2] % LANES
    yield "attention.table", np.pad(table.astype(np.float16), ((0, 0), (0, 0), (0, padding)))


def _projected(weight: np.ndarray, heads: int, first: int, last: int) -> np.ndarray:
    """A layer's projections of the distances first, first - 1, ..., last by head: [h, P, D / h]."""
    width = len(weight)
    rate = np.exp(np.arange(0, width, 2) * (-math.log(10_000.0) / width)).astype(np.float32)
    angle = np.arange(first, last - 1, -1).astype(np.float32)[:, None] * rate
    sinusoids = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(angle), width)
    return np.ascontiguousarray((sinusoids @ weight.T).reshape(len(angle), heads, -1).swapaxes(0, 1))


def _as_bytes(projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[h, P, d] -> what the kernels read of each head, and scales [h, P]."""
    scales = np.maximum(np.abs(projected).max(2), SMALLEST) / LEVELS
    rounded = np.rint(projected / scales[..., None]).astype(np.int8)
    return np.stack([pack(head) for head in rounded]), scales.astype(np.float32)
