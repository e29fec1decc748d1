"""Writes a network's subsampling for the native kernel, in one file: channels are padded with zeros to blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from conure.engine.backends.cpu.native_subsampling import NATIVE_SUBSAMPLING_FILE, POINTWISE_LAYERS, STRIDED_LAYERS
from conure.engine.convert.array_file import write_arrays
from conure.engine.convert.quantize import Affine
from conure.engine.convert.saturation import LEVELS
from conure.models.subsampling import Subsampling
from conure.native.float_matmul import COLUMNS, float_blocks
from conure.native.library import BLOCK, pack

__all__ = ["write_subsampling"]

TAPS = 9

NamedArrays = Iterator[tuple[str, np.ndarray]]


@torch.inference_mode()
def write_subsampling(module: Subsampling, folder: Path, *, int8: bool) -> None:
    """With `int8` the pointwise convolutions are quantised if the channels are a multiple of BLOCK.

    The error of the encoder's output is half of that from its int8 layers.
    """
    write_arrays(folder / NATIVE_SUBSAMPLING_FILE, _arrays(module, int8 and module.channels % BLOCK == 0))


def _arrays(module: Subsampling, int8: bool) -> NamedArrays:
    channels = -(-module.channels // COLUMNS) * COLUMNS
    for layer in STRIDED_LAYERS:
        weight, bias = _pad_channels(cast(nn.Conv2d, module.conv[layer]), channels)
        yield f"{layer}.weight", weight.reshape(channels, TAPS).T.numpy()
        yield f"{layer}.bias", bias.numpy()
    for layer in POINTWISE_LAYERS:
        weight, bias = _pad_channels(cast(nn.Conv2d, module.conv[layer]), channels)
        matrix = nn.functional.pad(weight.flatten(1), (0, channels - module.channels))
        if int8:
            values, scales = Affine(matrix).quantise(LEVELS)
            yield f"{layer}.values", pack(values.numpy())
            yield f"{layer}.scales", scales.numpy()
        else:
            yield f"{layer}.values", float_blocks(matrix.T.numpy())
        yield f"{layer}.bias", bias.numpy()


def _pad_channels(layer: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """Weight [channels, ...] and bias [channels], padded with zeros."""
    weight = layer.weight.float()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.float()
    padding = channels - len(weight)
    return torch.cat([weight, weight.new_zeros(padding, *weight.shape[1:])]), nn.functional.pad(bias, (0, padding))
