"""A network's heads as the native decoder reads them, in one file: blocks of columns, filled up with zeros.

What is read for every token is in int8 where the conversion is; what a step is asked once stays in float32.
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
from conure.native.decoder import LEAST, pack_floats, whole
from conure.native.library import BLOCK, LANES, pack

__all__ = ["write_heads"]

GATES = 4

Arrays = Iterator[tuple[str, np.ndarray]]


@torch.inference_mode()
def write_heads(heads: Heads, folder: Path, *, int8: bool) -> None:
    write_arrays(folder / HEADS_FILE, _arrays(heads, int8))


def _arrays(heads: Heads, int8: bool) -> Arrays:
    if heads.ctc_head is not None:
        yield from _layer("ctc", _filled(Affine.of(heads.ctc_head), LEAST), int8=False)
    if heads.predictor is not None and heads.joint is not None:
        yield from _predictor(heads.predictor, int8)
        yield from _joint(heads.joint, heads.config.vocabulary + 1, int8)


def _predictor(predictor: Predictor, int8: bool) -> Arrays:
    embedding = predictor.embedding.weight.float()
    width, most = embedding.shape[1], whole(embedding.shape[1], LANES)
    yield "embedding", F.pad(embedding, (0, most - width)).numpy()
    for index, weights in enumerate(predictor.lstm.all_weights):
        inputs, recurrent, *biases = (weight.float() for weight in weights)
        both = torch.cat([F.pad(part, (0, most - width)) for part in (inputs, recurrent)], 1)
        cell = Affine(_by_unit(both, most), _by_unit((biases[0] + biases[1])[:, None], most)[:, 0])
        yield from _layer(f"cell.{index}", cell, int8)


def _by_unit(gates: Tensor, most: int) -> Tensor:
    """Gates one after the other, [4 * P, K] -> 16 units of each gate in turn, with units up to `most`."""
    parts = gates.view(GATES, -1, gates.shape[1])
    parts = F.pad(parts, (0, 0, 0, most - parts.shape[1])).view(GATES, -1, LANES, gates.shape[1])
    return parts.transpose(0, 1).reshape(GATES * most, -1)


def _joint(joint: Joint, tokens: int, int8: bool) -> Arrays:
    """Durations begin a block of their own."""
    yield from _layer("encoder", _filled(Affine.of(joint.enc)), int8=False)
    yield from _layer("predicted", _filled(Affine.of(joint.pred)), int8)
    head = Affine.of(joint.head)
    parts = [_filled(head.rows(part), LEAST) for part in (slice(tokens), slice(tokens, None)) if len(head.weight[part])]
    weight = torch.cat([part.weight for part in parts])
    biases = torch.cat([part.bias for part in parts if part.bias is not None])
    yield from _layer("joint", Affine(F.pad(weight, (0, _missing(weight.shape[1], BLOCK))), biases), int8)


def _filled(layer: Affine, bias: float = 0.0) -> Affine:
    """With more outputs, of such a bias, up to a whole block."""
    missing = _missing(len(layer.weight), BLOCK)
    own = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return Affine(F.pad(layer.weight, (0, 0, 0, missing)), F.pad(own, (0, missing), value=bias))


def _layer(name: str, layer: Affine, int8: bool) -> Arrays:
    assert layer.bias is not None
    weight = F.pad(layer.weight, (0, _missing(layer.weight.shape[1], LANES)))
    if int8:
        values, scales = Affine(weight).columns(LEVELS)
        yield f"{name}.values", pack(values.numpy())
        yield f"{name}.scales", scales.numpy()
    else:
        yield f"{name}.values", pack_floats(weight.numpy())
    yield f"{name}.bias", layer.bias.numpy()


def _missing(size: int, part: int) -> int:
    return whole(size, part) - size
