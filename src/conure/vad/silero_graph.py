"""Silero VAD as an ONNX graph that takes many steps at once.

    frames -> spectra -> magnitudes [n, 4 * 129] -> 4 convolutions -> [n, 128] -> LSTM -> probabilities [n]

A step is four frames, so a convolution over its frames is one small matrix: faster than a convolution, and all steps
share one product. A cosine is the same from either end of a frame and a sine the opposite, so a spectrum is made of
sums and differences of samples, with half of the products. Several streams may be heard at once: n counts the first
step of each, then the second of each.
Knows the shapes of Silero 6 for 16 kHz, not where its weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["SHAPES", "WIDTH", "silero_graph"]

WIDTH = 128
FRAMES, HALF, BINS = 4, 128, 129
STRIDES = (1, 2, 2, 1)

SHAPES = {
    "stft.forward_basis_buffer": (2 * BINS, 1, 256),
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

Tensors = Mapping[str, NDArray[np.float32]]


def silero_graph(tensors: Tensors) -> bytes:
    """Inputs `ahead` and `back` [n, 4, 128], `hidden`, `cell`; outputs `probabilities`, `next_hidden`, `next_cell`."""
    graph = _Graph()
    encoded = graph.convolutions(graph.magnitudes(), tensors)
    spoken = graph.lstm(encoded, tensors)
    weight = graph.constant(tensors["decoder.decoder.2.weight"].reshape(WIDTH, 1))
    bias = graph.constant(tensors["decoder.decoder.2.bias"].reshape(1))
    graph.node("Sigmoid", graph.node("Gemm", graph.node("Relu", spoken), weight, bias), out="probabilities")
    return graph.model()


class _Graph:
    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """The name of its (first) output; `out` may name several."""
        names = out.split() or [f"value{len(self._nodes)}"]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def magnitudes(self) -> str:
        """Samples 1 to 128 of each frame, and 255 to 128 -> [n, 4 * 129]; sample 0 is lost to the window."""
        cosines, sines = (self.constant(basis) for basis in _fourier())
        real = self.node("MatMul", self.node("Add", "ahead", "back"), cosines)
        imaginary = self.node("MatMul", self.node("Sub", "ahead", "back"), sines)
        power = self.node("Add", self.node("Mul", real, real), self.node("Mul", imaginary, imaginary))
        return self.node("Reshape", self.node("Sqrt", power), self._ints(-1, FRAMES * BINS))

    def convolutions(self, values: str, tensors: Tensors) -> str:
        """[n, 4 * 129] -> [n, 128]"""
        frames = FRAMES
        for layer, stride in enumerate(STRIDES):
            weight, bias = (tensors[f"encoder.{layer}.reparam_conv.{part}"] for part in ("weight", "bias"))
            matrix = _as_matrix(weight, frames, stride)
            frames = -(-frames // stride)
            tiled = self.constant(np.tile(bias, frames))
            values = self.node("Relu", self.node("Gemm", values, self.constant(matrix), tiled))
        return values

    def lstm(self, values: str, tensors: Tensors) -> str:
        """[n, 128] -> [n, 128]; as many streams as `hidden` has."""
        streams = self.node("Slice", self.node("Shape", "hidden"), self._ints(1), self._ints(2))
        by_stream = self.node("Concat", self._ints(-1), streams, self._ints(WIDTH), axis=0)
        parts = {name: _gates(tensors[f"decoder.rnn.{name}"]) for name in ("weight_ih", "weight_hh")}
        biases = np.concatenate([_gates(tensors["decoder.rnn.bias_ih"]), _gates(tensors["decoder.rnn.bias_hh"])])
        self.node(
            "LSTM",
            self.node("Reshape", values, by_stream),  # [steps, streams, 128]
            self.constant(parts["weight_ih"][None]),
            self.constant(parts["weight_hh"][None]),
            self.constant(biases[None]),
            "",
            "hidden",
            "cell",
            out="outputs next_hidden next_cell",
            hidden_size=WIDTH,
        )
        return self.node("Reshape", "outputs", self._ints(-1, WIDTH))

    def _ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def model(self) -> bytes:
        state: list[str | int] = [1, "streams", WIDTH]
        inputs = [
            *(_value(half, ["n", FRAMES, HALF]) for half in ("ahead", "back")),
            _value("hidden", state),
            _value("cell", state),
        ]
        states = [_value("next_hidden", state), _value("next_cell", state)]
        outputs = [_value("probabilities", ["n", 1]), *states]
        graph = helper.make_graph(self._nodes, "silero", inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString())


def _value(name: str, shape: list[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _fourier() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines [128, 129] of samples 1 to 128 under a Hann window of 256.

    As in the tensors, which are rounded to float16 here and there. Sample 128 is its own counterpart.
    """
    sample, frequency = np.arange(1, HALF + 1)[:, None], np.arange(BINS)
    window = 0.5 - 0.5 * np.cos(np.pi * sample / HALF)
    window[-1] /= 2
    angle = np.pi * sample * frequency / HALF
    return (window * np.cos(angle)).astype(np.float32), (window * np.sin(angle)).astype(np.float32)


def _as_matrix(weight: NDArray[np.float32], frames: int, stride: int) -> NDArray[np.float32]:
    """A convolution [out, in, 3] with a frame of zeros on either side, as [frames * in, frames after * out]."""
    after = -(-frames // stride)
    matrix = np.zeros((frames, weight.shape[1], after, weight.shape[0]), np.float32)
    for to in range(after):
        for tap in range(3):
            source = to * stride + tap - 1
            if 0 <= source < frames:
                matrix[source, :, to] = weight[:, :, tap].T
    return matrix.reshape(frames * weight.shape[1], after * weight.shape[0])


def _gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Input, forget, cell, output in torch's order -> input, output, forget, cell in ONNX's."""
    into, forget, cell, out = np.split(values, 4)
    return np.concatenate([into, out, forget, cell])
