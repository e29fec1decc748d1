"""Writes a network's encoder for the native kernels: int8 weights in blocks, in one file.

Factors are folded as in `onnx_layers.py`: the scale of scores into queries, factors of 0.5 and batch norms into
adjacent weights. Queries, keys and values are one product, and so are the values and gates of the convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from conure.engine.backends.cpu.int8_weights import INT8_ENCODER_FILE, packed_distances
from conure.engine.backends.positions import projected_distances
from conure.engine.convert.array_file import write_arrays
from conure.engine.convert.graph_names import REACH
from conure.engine.convert.onnx_layers import fold_batch_norm
from conure.engine.convert.quantize import Affine
from conure.engine.convert.saturation import LEVELS
from conure.models.attention import Attention
from conure.models.config import EncoderConfig
from conure.models.conformer import Layer, SpeakerKernel
from conure.models.network import Network
from conure.native.library import BLOCK, SIMD_LANES, pack

__all__ = ["supports_native_kernels", "unsupported_feature", "write_int8_encoder"]


def supports_native_kernels(network: Network) -> bool:
    """Whether the native kernels can run a network."""
    return not unsupported_feature(network)


def unsupported_feature(network: Network) -> str:
    """The feature of a network that the native kernels do not support; empty if there is none."""
    config = network.config.encoder
    if config.global_separate:
        return "separate projections of global attention"
    blocks = (config.width, config.width * config.expansion)
    vectors = (config.width // config.heads, network.encoder.pre_encode.out.in_features)
    fits = all(size % BLOCK == 0 for size in blocks) and all(size % SIMD_LANES == 0 for size in vectors)
    return "" if fits else f"layers of width {config.width} with {config.heads} heads"


@torch.inference_mode()
def write_int8_encoder(network: Network, folder: Path) -> None:
    write_arrays(folder / INT8_ENCODER_FILE, _arrays(network))


NamedArrays = Iterator[tuple[str, np.ndarray]]


def _arrays(network: Network) -> NamedArrays:
    encoder = network.encoder
    scale = math.sqrt(encoder.config.width) if encoder.config.scale_input else 1.0
    yield from _product("subsampled", Affine.from_linear(encoder.pre_encode.out).scaled(scale))
    for index, layer in enumerate(cast(list[Layer], list(encoder.layers))):
        for name, array in _layer(layer, encoder.config):
            yield f"{index}.{name}", array
    if "0" in encoder.speaker_kernels:
        speaker, background = (
            cast(SpeakerKernel, kernels["0"]) for kernels in (encoder.speaker_kernels, encoder.background_kernels)
        )
        output = Affine.from_linear(background.linear2)
        assert background.linear1.bias is not None
        yield from _product("wanted.up", Affine.from_linear(speaker.linear1))
        yield from _product("wanted.down", Affine.from_linear(speaker.linear2))
        yield (
            "silence",
            nn.functional.linear(background.linear1.bias.float().relu(), output.weight, output.bias).numpy(),
        )
    if network.prompt is not None:
        first, width = Affine.from_linear(network.prompt.linear1), encoder.config.width
        yield from _product("prompt.up", Affine(first.weight[:, :width], first.bias))
        yield "prompt.table", first.weight[:, width:].T.numpy()
        yield from _product("prompt.down", Affine.from_linear(network.prompt.linear2))


def _layer(layer: Layer, config: EncoderConfig) -> NamedArrays:
    for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
        yield from _norm(f"norm_{name}", getattr(layer, f"norm_{name}"))
    for name in ("feed_forward1", "feed_forward2"):
        module = getattr(layer, name)
        yield from _product(f"{name}.up", Affine.from_linear(module.linear1))
        yield from _product(f"{name}.down", Affine.from_linear(module.linear2).scaled(0.5))
    attention, scale = layer.self_attn, layer.self_attn.head_width**-0.5
    u, v = (bias.float().flatten() * scale for bias in (attention.pos_bias_u, attention.pos_bias_v))
    query = Affine.from_linear(attention.linear_q).scaled(scale).with_bias(u)
    yield from _product(
        "projected", _concatenate(query, Affine.from_linear(attention.linear_k), Affine.from_linear(attention.linear_v))
    )
    yield "attention.shift", (v - u).numpy()
    if config.global_tokens:
        yield "attention.bias", u.numpy()
    yield from _attention(attention, config)
    yield from _product("mixed", Affine.from_linear(attention.linear_out))
    yield from _product("gated", _interleaved(Affine.from_linear(layer.conv.pointwise_conv1)))
    weight, bias = fold_batch_norm(layer.conv)
    yield "filter.weight", weight[:, 0].T.numpy()
    yield "filter.bias", bias.numpy()
    if isinstance(layer.conv.batch_norm, nn.LayerNorm):
        yield from _norm("norm_filter", layer.conv.batch_norm)
    yield from _product("filtered", Affine.from_linear(layer.conv.pointwise_conv2))


def _product(name: str, layer: Affine) -> NamedArrays:
    values, scales = layer.quantise(LEVELS)
    yield f"{name}.values", pack(values.numpy())
    yield f"{name}.scales", scales.numpy()
    if layer.bias is not None:
        yield f"{name}.bias", layer.bias.numpy()


def _norm(name: str, module: nn.LayerNorm) -> NamedArrays:
    yield f"{name}.weight", module.weight.float().numpy()
    yield f"{name}.bias", module.bias.float().numpy()
    yield f"{name}.epsilon", np.array([module.eps], np.float32)


def _concatenate(*layers: Affine) -> Affine:
    """Concatenates the outputs of layers."""
    biases = [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    return Affine(torch.cat([layer.weight for layer in layers]), torch.cat(biases))


def _interleaved(both: Affine) -> Affine:
    """Reorders values and gates: 32 values, their 32 gates, the next 32 values."""
    order = torch.arange(len(both.weight)).view(2, -1, BLOCK // 2).transpose(0, 1).reshape(-1)
    return Affine(both.weight[order], None if both.bias is None else both.bias[order])


def _attention(module: Attention, config: EncoderConfig) -> NamedArrays:
    """Projected distances for clips and, if the network is cache-aware, for streams."""
    weight, heads = module.linear_pos.weight.float().numpy(), module.heads
    values, scales = packed_distances(weight, heads, REACH)
    yield "attention.distances", values
    yield "attention.distances.scales", scales
    yield "attention.position", weight.astype(np.float16)
    if not config.is_cache_aware:
        return
    # Padded with zeros, because the kernels read whole vectors from any column on.
    past, chunk = config.max_past, config.max_chunk
    table = projected_distances(weight, heads, past + chunk, 1 - chunk)
    padding = 2 * SIMD_LANES - table.shape[2] % SIMD_LANES
    yield "attention.table", np.pad(table.astype(np.float16), ((0, 0), (0, 0), (0, padding)))
