"""A network's subsampling as the native kernel reads it, in one file: channels filled up with zeros to whole blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from conure.engine.packed_arrays import PackedArrays, write_arrays
from conure.engine.quantize import LEVELS, Affine
from conure.models.subsampling import Subsampling
from conure.native.dense import Dense, dense_blocks
from conure.native.front import CHANNELS, FrontKernel, Mix, Stride
from conure.native.library import BLOCK, Weight, pack

__all__ = ["FRONT_PACKED", "open_front", "write_front"]

FRONT_PACKED = "front.packed"
STRIDES, MIXES = (0, 2, 5), (3, 6)
TAPS = 9

Arrays = Iterator[tuple[str, np.ndarray]]


@torch.inference_mode()
def write_front(module: Subsampling, folder: Path, *, int8: bool) -> None:
    """With `int8` the mixes are of bytes, where channels make whole blocks of them."""
    write_arrays(folder / FRONT_PACKED, _arrays(module, int8 and module.channels % BLOCK == 0))


def open_front(folder: Path, features: int, channels: int, *, causal: bool) -> FrontKernel:
    """What `write_front` wrote. Raises OSError where there is nothing."""
    packed = PackedArrays(folder / FRONT_PACKED)
    strides = [Stride(packed.array(f"{index}.weight"), packed.array(f"{index}.bias")) for index in STRIDES]
    mixes = [Mix(_product(packed, str(index))) for index in MIXES]
    return FrontKernel(strides, mixes, features, channels, 2 if causal else 1)


def _dense(packed: PackedArrays, name: str) -> Dense:
    bias = packed.array(f"{name}.bias")
    return Dense(packed.array(f"{name}.values"), bias)


def _product(packed: PackedArrays, name: str) -> Dense | Weight:
    if f"{name}.scales" not in packed:
        return _dense(packed, name)
    return Weight(*(packed.array(f"{name}.{part}") for part in ("values", "scales", "bias")))


def _arrays(module: Subsampling, int8: bool) -> Arrays:
    channels = -(-module.channels // CHANNELS) * CHANNELS
    for index in STRIDES:
        weight, bias = _filled(cast(nn.Conv2d, module.conv[index]), channels)
        yield f"{index}.weight", weight.reshape(channels, TAPS).T.numpy()
        yield f"{index}.bias", bias.numpy()
    for index in MIXES:
        weight, bias = _filled(cast(nn.Conv2d, module.conv[index]), channels)
        matrix = nn.functional.pad(weight.flatten(1), (0, channels - module.channels))
        if int8:
            values, scales = Affine(matrix).columns(LEVELS)
            yield f"{index}.values", pack(values.numpy())
            yield f"{index}.scales", scales.numpy()
            yield f"{index}.bias", bias.numpy()
        else:
            yield from _blocks(str(index), matrix, bias)


def _filled(layer: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """Weight [channels, ...] and bias [channels]: those that are there no more give zeros."""
    weight = layer.weight.float()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.float()
    added = channels - len(weight)
    return torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])]), nn.functional.pad(bias, (0, added))


def _blocks(name: str, matrix: Tensor, bias: Tensor) -> Arrays:
    """Of a product [out, in]."""
    yield f"{name}.values", dense_blocks(matrix.T.numpy())
    yield f"{name}.bias", bias.numpy()
