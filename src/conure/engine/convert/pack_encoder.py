"""A network's encoder as the native kernels read it: int8 weights in blocks, in one file.

What is folded into what is as in `onnx_layers`: the scale of scores into queries, halves and batch norms into the
weights beside them. Queries, keys and values are one product, and so are the convolution's values and gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from conure.engine.backends.cpu.int8_weights import FILE, packed_distances
from conure.engine.backends.positions import projected_distances
from conure.engine.convert.array_file import write_arrays
from conure.engine.convert.graph_names import REACH
from conure.engine.convert.onnx_layers import folded_filter
from conure.engine.convert.quantize import Affine
from conure.engine.convert.saturation import LEVELS
from conure.models.attention import Attention
from conure.models.config import EncoderConfig
from conure.models.conformer import Layer, SpeakerKernel
from conure.models.network import Network
from conure.native.library import BLOCK, LANES, pack

__all__ = ["is_packable", "lacking", "write_packed"]


def is_packable(network: Network) -> bool:
    """Whether the kernels can run a network."""
    return not lacking(network)


def lacking(network: Network) -> str:
    """What the kernels lack for a network; empty where they can run it."""
    config = network.config.encoder
    if config.global_separate:
        return "projections for global steps alone"
    blocks = (config.width, config.width * config.expansion)
    vectors = (config.width // config.heads, network.encoder.pre_encode.out.in_features)
    fits = all(size % BLOCK == 0 for size in blocks) and all(size % LANES == 0 for size in vectors)
    return "" if fits else f"layers of {config.width} with {config.heads} heads"


@torch.inference_mode()
def write_packed(network: Network, folder: Path) -> None:
    write_arrays(folder / FILE, _arrays(network))


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
    if config.global_tokens:
        yield "attention.bias", u.numpy()
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


def _attention(module: Attention, config: EncoderConfig) -> Arrays:
    """Projections of distances, for clips and, of cache-aware networks, for chunks of streams."""
    weight, heads = module.linear_pos.weight.float().numpy(), module.heads
    values, scales = packed_distances(weight, heads, REACH)
    yield "attention.distances", values
    yield "attention.distances.scales", scales
    yield "attention.position", weight.astype(np.float16)
    if not config.is_cache_aware:
        return
    # Zeros follow, for the kernels read whole vectors from any column on.
    past, chunk = config.max_past, config.max_chunk
    table = projected_distances(weight, heads, past + chunk, 1 - chunk)
    padding = 2 * LANES - table.shape[2] % LANES
    yield "attention.table", np.pad(table.astype(np.float16), ((0, 0), (0, 0), (0, padding)))
