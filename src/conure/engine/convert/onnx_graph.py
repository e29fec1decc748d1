"""Writes ONNX graphs node by node. Weights go straight to a file beside the graph, one at a time.

The graph itself stays small enough for one message (protobuf ends at 2 GB), and no more than one weight is held
in memory for it. Operators of the domain com.microsoft are ONNX Runtime's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["Graph", "Weights", "save_graph", "save_graphs"]

OPSET = 17
IR_VERSION = 9
"""What ONNX Runtime 1.22 reads, the oldest we allow."""

ALIGNMENT = 4096
"""Weights begin at a page, so that they can be mapped into memory as they are."""

INLINE_BYTES = 1024


class Weights:
    """An open file of arrays that is called `location` beside the graphs that read it; equal arrays are kept once."""

    def __init__(self, file: IO[bytes], location: str) -> None:
        self._file, self._location = file, location
        self._places: dict[bytes, dict[str, str]] = {}

    def keep(self, array: np.ndarray) -> dict[str, str]:
        """Where its bytes are, as ONNX has it."""
        data = array.data.cast("B")
        digest = hashlib.blake2b(data, digest_size=32).digest()
        if digest not in self._places:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            where = {"location": self._location, "offset": self._file.tell(), "length": array.nbytes}
            self._places[digest] = {key: str(value) for key, value in where.items()}
            self._file.write(data)
        return self._places[digest]


class Graph:
    """Values are named after the node that made them: its operator and a running number."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(
        self, name: str, kind: type[np.generic], shape: list[str | int], default: np.ndarray | None = None
    ) -> str:
        """An input, which need not be given where it has a default."""
        self._inputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))
        if default is not None:
            self._store(name, np.asarray(default, kind, order="C"))
        return name

    def output(self, name: str, value: str, kind: type[np.generic], shape: list[str | int]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))

    def update(self, name: str, kind: type[np.generic], shape: list[str | int], operator: str, *inputs: str) -> str:
        """Adds a node whose output is one of the graph's and may be read on: bound to the memory of an input that
        the operator changes in a few places, it is not copied."""
        self._nodes.append(helper.make_node(operator, list(inputs), [name]))
        self._outputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))
        return name

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of the standard domain and gives the name of its output."""
        return self.ops(operator, 1, *inputs, **attributes)[0]

    def contrib(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Likewise of ONNX Runtime's own domain."""
        return self.ops(operator, 1, *inputs, domain="com.microsoft", **attributes)[0]

    def ops(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Likewise with several outputs."""
        name = f"{operator}_{len(self._nodes)}"
        names = [f"{name}.{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        """A weight or a small constant; equal small ones are kept once."""
        array = np.asarray(array, order="C")
        name = f"weight_{len(self._constants)}"
        if array.nbytes <= INLINE_BYTES:
            name = "constant_" + hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
        return self._store(name, array)

    def ints(self, *values: int) -> str:
        """A vector of int64, as shapes and axes are."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, kind: type[np.generic] = np.int64) -> str:
        return self.constant(np.array(value, kind))

    def size(self, x: str, axis: int) -> str:
        """The size of an axis, a scalar."""
        return self.op("Gather", self.op("Shape", x), self.scalar(axis))

    def range(self, size: str) -> str:
        """0, 1, ..., size - 1."""
        return self.op("Range", self.scalar(0), size, self.scalar(1))

    @staticmethod
    def element(kind: type[np.generic] | np.dtype[Any]) -> int:
        """ONNX's number for a type."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def serialize(self) -> bytes:
        """The graph; its weights are in their file already."""
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, "conure", self._inputs, self._outputs, constants)
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, producer_name="conure", opset_imports=domains, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    def _store(self, name: str, array: np.ndarray) -> str:
        if name not in self._constants:
            small = array.nbytes <= INLINE_BYTES
            self._constants[name] = numpy_helper.from_array(array, name) if small else self._external(name, array)
        return name

    def _external(self, name: str, array: np.ndarray) -> TensorProto:
        tensor = TensorProto(name=name, dims=array.shape, data_type=self.element(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in self._weights.keep(array).items():
            tensor.external_data.add(key=key, value=value)
        return tensor


def save_graph(path: Path, write: Callable[[Graph], None]) -> None:
    """What `write` adds to a graph becomes a file, with its weights in another beside it."""
    save_graphs(path.with_suffix(".weights"), {path: write})


def save_graphs(weights: Path, graphs: Mapping[Path, Callable[[Graph], None]]) -> None:
    """Likewise several graphs; what they have in common is once in the file of their weights."""
    with weights.open("wb") as file:
        kept = Weights(file, weights.name)
        for path, write in graphs.items():
            graph = Graph(kept)
            write(graph)
            path.write_bytes(graph.serialize())
