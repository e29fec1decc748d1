"""Writes ONNX graphs node by node. Weights are written to an external file, one at a time.

The graph itself stays below the 2 GB limit of a protobuf message, and only one weight is in memory at a time. Operators
of the domain com.microsoft are extensions of ONNX Runtime.
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
"""Supported by ONNX Runtime 1.22, the oldest version we support."""

ALIGNMENT = 4096
"""Weights are aligned to pages, so that they can be memory-mapped."""

INLINE_BYTES = 1024


class Weights:
    """External weights in an open file, which graphs refer to as `location`; equal arrays are stored once."""

    def __init__(self, file: IO[bytes], location: str) -> None:
        self._file, self._location = file, location
        self._entries: dict[bytes, dict[str, str]] = {}

    def store(self, array: np.ndarray) -> dict[str, str]:
        """Stores an array; returns its location for a TensorProto's external_data."""
        data = array.data.cast("B")
        digest = hashlib.blake2b(data, digest_size=32).digest()
        if digest not in self._entries:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            entry = {"location": self._location, "offset": self._file.tell(), "length": array.nbytes}
            self._entries[digest] = {key: str(value) for key, value in entry.items()}
            self._file.write(data)
        return self._entries[digest]


class Graph:
    """Builds one graph. Values are named after the operator and number of their node."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(
        self, name: str, kind: type[np.generic], shape: list[str | int], default: np.ndarray | None = None
    ) -> str:
        """Adds an input; it is optional if it has a default."""
        self._inputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))
        if default is not None:
            self._store(name, np.asarray(default, kind, order="C"))
        return name

    def output(self, name: str, value: str, kind: type[np.generic], shape: list[str | int]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))

    def update(self, name: str, kind: type[np.generic], shape: list[str | int], operator: str, *inputs: str) -> str:
        """Adds a node whose output is a graph output that later nodes may read. If the caller binds it to the memory of
        an input that the operator updates in part, ONNX Runtime does not copy it."""
        self._nodes.append(helper.make_node(operator, list(inputs), [name]))
        self._outputs.append(helper.make_tensor_value_info(name, self.element(kind), shape))
        return name

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of the standard domain; returns the name of its output."""
        return self.ops(operator, 1, *inputs, **attributes)[0]

    def contrib(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of ONNX Runtime's domain."""
        return self.ops(operator, 1, *inputs, domain="com.microsoft", **attributes)[0]

    def ops(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node with several outputs."""
        name = f"{operator}_{len(self._nodes)}"
        names = [f"{name}.{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        """Adds a weight or a small constant; equal small constants are stored once."""
        array = np.asarray(array, order="C")
        name = f"weight_{len(self._constants)}"
        if array.nbytes <= INLINE_BYTES:
            name = "constant_" + hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
        return self._store(name, array)

    def ints(self, *values: int) -> str:
        """An int64 vector, for shapes and axes."""
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
        """ONNX's code of a type."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def serialize(self) -> bytes:
        """The serialised graph, without the weights in the external file."""
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, "conure", self._inputs, self._outputs, constants)
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, producer_name="conure", opset_imports=domains, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    def _store(self, name: str, array: np.ndarray) -> str:
        if name not in self._constants:
            is_small = array.nbytes <= INLINE_BYTES
            self._constants[name] = numpy_helper.from_array(array, name) if is_small else self._external(name, array)
        return name

    def _external(self, name: str, array: np.ndarray) -> TensorProto:
        tensor = TensorProto(name=name, dims=array.shape, data_type=self.element(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in self._weights.store(array).items():
            tensor.external_data.add(key=key, value=value)
        return tensor


def save_graph(path: Path, write: Callable[[Graph], None]) -> None:
    """Saves the graph that `write` builds; weights go to a file next to it."""
    save_graphs(path.with_suffix(".weights"), {path: write})


def save_graphs(weights: Path, graphs: Mapping[Path, Callable[[Graph], None]]) -> None:
    """Saves several graphs that share one file of weights."""
    with weights.open("wb") as file:
        shared = Weights(file, weights.name)
        for path, write in graphs.items():
            graph = Graph(shared)
            write(graph)
            path.write_bytes(graph.serialize())
