"""Writes a network's heads for the native decoder, in one file: blocks of columns, padded with zeros.

Layers that run for every token are int8 in int8 conversions; layers that run once per step stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conure.engine.backends.cpu.native_decoder import HEADS_FILE
from conure.engine.convert.array_file import write_arrays
from conure.engine.convert.quantize import Affine
from conure.engine.convert.saturation import LEVELS
from conure.models.network import Heads
from conure.models.transducer import Joint, Predictor
from conure.native.decoder import PADDING_BIAS, pack_floats, round_up
from conure.native.library import BLOCK, SIMD_LANES, pack

__all__ = ["write_heads"]

GATES = 4

NamedArrays = Iterator[tuple[str, np.ndarray]]


@torch.inference_mode()
def write_heads(heads: Heads, folder: Path, *, int8: bool) -> None:
    write_arrays(folder / HEADS_FILE, _arrays(heads, int8))


def _arrays(heads: Heads, int8: bool) -> NamedArrays:
    if heads.ctc_head is not None:
        yield from _layer("ctc", _pad_outputs(Affine.from_linear(heads.ctc_head), PADDING_BIAS), int8=False)
    if heads.predictor is not None and heads.joint is not None:
        yield from _predictor(heads.predictor, int8)
        yield from _joint(heads.joint, heads.config.vocabulary + 1, int8)


def _predictor(predictor: Predictor, int8: bool) -> NamedArrays:
    embedding = predictor.embedding.weight.float()
    width, padded_width = embedding.shape[1], round_up(embedding.shape[1], SIMD_LANES)
    yield "embedding", F.pad(embedding, (0, padded_width - width)).numpy()
    for index, weights in enumerate(predictor.lstm.all_weights):
        inputs, recurrent, *biases = (weight.float() for weight in weights)
        both = torch.cat([F.pad(part, (0, padded_width - width)) for part in (inputs, recurrent)], 1)
        cell = Affine(_by_unit(both, padded_width), _by_unit((biases[0] + biases[1])[:, None], padded_width)[:, 0])
        yield from _layer(f"cell.{index}", cell, int8)


def _by_unit(gates: Tensor, padded_width: int) -> Tensor:
    """Gates [4 * P, K] -> interleaved by 16 units, padded to `padded_width` units per gate."""
    parts = gates.view(GATES, -1, gates.shape[1])
    parts = F.pad(parts, (0, 0, 0, padded_width - parts.shape[1])).view(GATES, -1, SIMD_LANES, gates.shape[1])
    return parts.transpose(0, 1).reshape(GATES * padded_width, -1)


def _joint(joint: Joint, tokens: int, int8: bool) -> NamedArrays:
    """Durations begin at a new block."""
    yield from _layer("encoder", _pad_outputs(Affine.from_linear(joint.enc)), int8=False)
    yield from _layer("predicted", _pad_outputs(Affine.from_linear(joint.pred)), int8)
    head = Affine.from_linear(joint.head)
    parts = [
        _pad_outputs(head.rows(part), PADDING_BIAS)
        for part in (slice(tokens), slice(tokens, None))
        if len(head.weight[part])
    ]
    weight = torch.cat([part.weight for part in parts])
    biases = torch.cat([part.bias for part in parts if part.bias is not None])
    yield from _layer("joint", Affine(F.pad(weight, (0, _padding(weight.shape[1], BLOCK))), biases), int8)


def _pad_outputs(layer: Affine, bias: float = 0.0) -> Affine:
    """Pads the outputs to a multiple of BLOCK, with `bias` for the padding."""
    padding = _padding(len(layer.weight), BLOCK)
    own_bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return Affine(F.pad(layer.weight, (0, 0, 0, padding)), F.pad(own_bias, (0, padding), value=bias))


def _layer(name: str, layer: Affine, int8: bool) -> NamedArrays:
    assert layer.bias is not None
    weight = F.pad(layer.weight, (0, _padding(layer.weight.shape[1], SIMD_LANES)))
    if int8:
        values, scales = Affine(weight).quantise(LEVELS)
        yield f"{name}.values", pack(values.numpy())
        yield f"{name}.scales", scales.numpy()
    else:
        yield f"{name}.values", pack_floats(weight.numpy())
    yield f"{name}.bias", layer.bias.numpy()


def _padding(size: int, part: int) -> int:
    return round_up(size, part) - size
