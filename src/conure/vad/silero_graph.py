"""Silero VAD as an ONNX graph that computes many steps at once.

    frames -> spectra -> magnitudes [n, 4 * 129] -> 4 convolutions -> [n, 128] -> LSTM -> probabilities [n]

A spectrum is computed from sums and differences of samples at mirrored positions of a frame, which halves the products.
Several streams may be computed at once: n counts the first step of each, then the second of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from conure.vad.silero_weights import BINS, FRAMES, HALF, WIDTH, Tensors, convolutions, fourier

__all__ = ["silero_graph"]


def silero_graph(tensors: Tensors) -> bytes:
    """Inputs `ahead` and `back` [n, 4, 128], `hidden`, `cell`; outputs `probabilities`, `next_hidden`, `next_cell`."""
    graph = _Graph()
    encoded = graph.convolutions(graph.magnitudes(), tensors)
    outputs = graph.lstm(encoded, tensors)
    weight = graph.constant(tensors["decoder.decoder.2.weight"].reshape(WIDTH, 1))
    bias = graph.constant(tensors["decoder.decoder.2.bias"].reshape(1))
    graph.node("Sigmoid", graph.node("Gemm", graph.node("Relu", outputs), weight, bias), out="probabilities")
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
        """Samples 1 to 128 of each frame, and 255 to 128 -> [n, 4 * 129]."""
        cosines, sines = (self.constant(basis) for basis in fourier())
        real = self.node("MatMul", self.node("Add", "ahead", "back"), cosines)
        imaginary = self.node("MatMul", self.node("Sub", "ahead", "back"), sines)
        power = self.node("Add", self.node("Mul", real, real), self.node("Mul", imaginary, imaginary))
        return self.node("Reshape", self.node("Sqrt", power), self._ints(-1, FRAMES * BINS))

    def convolutions(self, values: str, tensors: Tensors) -> str:
        """[n, 4 * 129] -> [n, 128]"""
        for matrix, bias in convolutions(tensors):
            values = self.node("Relu", self.node("Gemm", values, self.constant(matrix), self.constant(bias)))
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


def _gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Input, forget, cell, output in torch's order -> input, output, forget, cell in ONNX's."""
    into, forget, cell, out = np.split(values, 4)
    return np.concatenate([into, out, forget, cell])
