"""A network's subsampling as the native kernel reads it, in one file: channels filled up with zeros to whole blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from conure.engine.backends.cpu.native_subsampling import FRONT_PACKED, MIXES, STRIDES
from conure.engine.convert.array_file import write_arrays
from conure.engine.convert.quantize import Affine
from conure.engine.convert.saturation import LEVELS
from conure.models.subsampling import Subsampling
from conure.native.float_matmul import COLUMNS, float_blocks
from conure.native.library import BLOCK, pack

__all__ = ["write_front"]

TAPS = 9

Arrays = Iterator[tuple[str, np.ndarray]]


@torch.inference_mode()
def write_front(module: Subsampling, folder: Path, *, int8: bool) -> None:
    """With `int8` the mixes of channels are products of bytes, where channels make whole blocks of them.

    That moves what an encoder gives by a half of what its own products of bytes do.
    """
    write_arrays(folder / FRONT_PACKED, _arrays(module, int8 and module.channels % BLOCK == 0))


def _arrays(module: Subsampling, int8: bool) -> Arrays:
    channels = -(-module.channels // COLUMNS) * COLUMNS
    for layer in STRIDES:
        weight, bias = _filled(cast(nn.Conv2d, module.conv[layer]), channels)
        yield f"{layer}.weight", weight.reshape(channels, TAPS).T.numpy()
        yield f"{layer}.bias", bias.numpy()
    for layer in MIXES:
        weight, bias = _filled(cast(nn.Conv2d, module.conv[layer]), channels)
        matrix = nn.functional.pad(weight.flatten(1), (0, channels - module.channels))
        if int8:
            values, scales = Affine(matrix).columns(LEVELS)
            yield f"{layer}.values", pack(values.numpy())
            yield f"{layer}.scales", scales.numpy()
        else:
            yield f"{layer}.values", float_blocks(matrix.T.numpy())
        yield f"{layer}.bias", bias.numpy()


def _filled(layer: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """Weight [channels, ...] and bias [channels]; what is added gives zeros."""
    weight = layer.weight.float()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.float()
    added = channels - len(weight)
    return torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])]), nn.functional.pad(bias, (0, added))
