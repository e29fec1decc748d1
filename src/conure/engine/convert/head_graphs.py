"""Exports a transducer's heads to ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conure.engine.convert.graph_names import JOINT_FILE, PREDICTOR_FILE
from conure.engine.convert.onnx_graph import Graph, save_graph
from conure.engine.convert.quantize import Affine, Products
from conure.models.network import Heads
from conure.models.transducer import Joint, Predictor

__all__ = ["export_heads"]


@torch.inference_mode()
def export_heads(heads: Heads, folder: Path, products: Products) -> None:
    """Writes the predictor and the joint graph if the network has a transducer."""
    predictor, joint = heads.predictor, heads.joint
    if predictor is None or joint is None:
        return
    save_graph(folder / PREDICTOR_FILE, lambda graph: _predictor(graph, predictor, joint, products))
    save_graph(folder / JOINT_FILE, lambda graph: _joint(graph, joint, products))


def _predictor(graph: Graph, predictor: Predictor, joint: Joint, products: Products) -> None:
    """tokens [B], hidden and cell [layers, B, P] -> predicted [B, J], hidden and cell."""
    tokens = graph.input("tokens", np.int64, ["B"])
    layers, width = predictor.lstm.num_layers, predictor.lstm.hidden_size
    hidden, cell = (graph.input(name, np.float32, [layers, "B", width]) for name in ("hidden", "cell"))
    x = graph.op("Gather", graph.constant(predictor.embedding.weight.float().numpy()), tokens)
    states: list[tuple[str, str]] = []
    for index, weights in enumerate(predictor.lstm.all_weights):
        before = [graph.op("Gather", memory, graph.scalar(index), axis=0) for memory in (hidden, cell)]
        x, after = _cell(graph, x, before[0], before[1], weights, products)
        states.append((x, after))
    predicted = products.layer(graph, products.operand(graph, x), Affine.from_linear(joint.pred))
    graph.output("predicted", predicted, np.float32, ["B", joint.pred.out_features])
    for name, parts in zip(("hidden_after", "cell_after"), zip(*states, strict=True), strict=True):
        stacked = [graph.op("Unsqueeze", part, graph.ints(0)) for part in parts]
        graph.output(name, graph.op("Concat", *stacked, axis=0), np.float32, [layers, "B", width])


def _cell(
    graph: Graph, x: str, hidden: str, cell: str, weights: Sequence[Tensor], products: Products
) -> tuple[str, str]:
    """One LSTM layer: hidden and cell after input x [B, P]. Gates are in torch's order: in, forget, new, out."""
    inputs, recurrent, *biases = (weight.float() for weight in weights)
    gates = Affine(torch.cat([inputs, recurrent], 1), biases[0] + biases[1])
    inputs_and_hidden = products.operand(graph, graph.op("Concat", x, hidden, axis=-1))
    in_gate, forget, new, out = graph.ops("Split", 4, products.layer(graph, inputs_and_hidden, gates), axis=-1)
    kept_cell = graph.op("Mul", graph.op("Sigmoid", forget), cell)
    new_cell = graph.op("Mul", graph.op("Sigmoid", in_gate), graph.op("Tanh", new))
    cell = graph.op("Add", kept_cell, new_cell)
    return graph.op("Mul", graph.op("Sigmoid", out), graph.op("Tanh", cell)), cell


def _joint(graph: Graph, joint: Joint, products: Products) -> None:
    """steps [B, W, J], predicted [B, J] -> logits [B, W, V + 1 + durations]."""
    width = joint.head.in_features
    steps = graph.input("steps", np.float32, ["B", "W", width])
    predicted = graph.op("Unsqueeze", graph.input("predicted", np.float32, ["B", width]), graph.ints(1))
    x = graph.op("Relu", graph.op("Add", steps, predicted))
    rows = graph.op("Reshape", x, graph.ints(-1, width))
    logits = products.layer(graph, products.operand(graph, rows), Affine.from_linear(joint.head))
    shape = graph.op("Concat", graph.op("Shape", steps, end=2), graph.ints(-1), axis=0)
    logits = graph.op("Reshape", logits, shape)
    graph.output("logits", logits, np.float32, ["B", "W", joint.head.out_features])
