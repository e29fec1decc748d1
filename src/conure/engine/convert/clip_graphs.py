"""Exports a network's encoder to ONNX graphs for clips.

Two graphs compute `Network.encode` for one clip. The subsampling graph maps pieces of mel [B, T, F] to [B, S, C], the
input of the projection. The encoder graph takes these steps of the whole clip and, if the model has language prompts,
prompts [1]; its output is encoded [1, S, D]. Tests compare the graphs with the modules.

Graphs process one clip at a time: a clip needs no padding masks, no padding steps are computed, and its result does not
depend on other clips. Clips of a few seconds keep a CPU as busy as batches.

Optimisations: scales, factors of 0.5 and batch norms are folded into adjacent weights; layers with the same input share
its quantisation; attention is one fused node per span of queries; each layer's projected distances are a precomputed
table. It covers clips up to 40 s; longer clips pass larger tables as inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from conure.engine.backends.positions import position_tables
from conure.engine.convert.graph_names import ENCODER_FILE, REACH, STREAM_FILE, SUBSAMPLING_GRAPH_FILE
from conure.engine.convert.onnx_attention import ClipView, FullAttentionView, LocalAttentionView
from conure.engine.convert.onnx_global_attention import GlobalAttentionView
from conure.engine.convert.onnx_graph import Graph, save_graph, save_graphs
from conure.engine.convert.onnx_layers import LayerWriter, convolution2d
from conure.engine.convert.quantize import Products, Table
from conure.engine.convert.stream_graph import write_stream_graph
from conure.models.attention import Attention
from conure.models.config import AttentionContext
from conure.models.conformer import Layer
from conure.models.network import Network
from conure.models.subsampling import Subsampling

__all__ = ["export_subsampling", "export_network"]


@torch.inference_mode()
def export_network(
    network: Network,
    folder: Path,
    products: Products,
    by_row: Products,
    context: AttentionContext | None = None,
) -> None:
    """Writes the graphs and their weights to `folder`: for clips, and for streams if the network is cache-aware.

    The graphs for clips use `products`, the graph for streams uses `by_row`. They share one file of weights. The
    subsampling stays in float32, because it is small and sensitive to rounding.
    """
    context = context or network.config.encoder.contexts[0]
    export_subsampling(network.encoder.pre_encode, folder)
    encoders = {folder / ENCODER_FILE: lambda graph: _encoder_graph(graph, network, products, context)}
    if network.config.encoder.is_cache_aware:
        encoders[folder / STREAM_FILE] = lambda graph: write_stream_graph(graph, network, by_row)
    save_graphs((folder / ENCODER_FILE).with_suffix(".weights"), encoders)


@torch.inference_mode()
def export_subsampling(module: Subsampling, folder: Path) -> None:
    save_graph(folder / SUBSAMPLING_GRAPH_FILE, lambda graph: _subsampling_graph(graph, module))


def _subsampling_graph(graph: Graph, module: Subsampling) -> None:
    x = graph.op("Unsqueeze", graph.input("mel", np.float32, ["B", "T", "F"]), graph.ints(1))
    lead = 2 if module.causal else 1
    for stride, pointwise in ((0, None), (2, 3), (5, 6)):
        x = convolution2d(graph, x, module.conv[stride], strides=[2, 2], pads=[lead, lead, 1, 1])
        if pointwise is not None:
            x = convolution2d(graph, x, module.conv[pointwise])
        x = graph.op("Relu", x)
    x = graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 1, 3]), graph.ints(0, 0, -1))
    graph.output("x", x, np.float32, ["B", "S", module.out.in_features])


def _encoder_graph(graph: Graph, network: Network, products: Products, context: AttentionContext) -> None:
    encoder, config = network.encoder, network.config.encoder
    x = graph.input("x", np.float32, [1, "S", encoder.pre_encode.out.in_features])
    layers, reach = cast(list[Layer], list(encoder.layers)), 2 * context.left if config.local else REACH
    tables = [_table(graph, index, layer.self_attn, products, reach) for index, layer in enumerate(layers)]
    if config.global_tokens and config.local:
        view: ClipView = GlobalAttentionView(graph, x, context.left, config)
    elif config.local:
        view = LocalAttentionView(graph, x, context.left)
    else:
        view = FullAttentionView(graph, x, tables[0].value, config, context)
    writer = LayerWriter(graph, products, view, has_global_steps=isinstance(view, GlobalAttentionView))
    x = writer.layers(encoder, writer.project_subsampled(encoder, x), tables)
    if network.prompt is not None:
        x = writer.apply_prompt(network.prompt, x, graph.input("prompts", np.int64, [1]))
    graph.output("encoded", x, np.float32, [1, "S", config.width])


def _table(graph: Graph, index: int, module: Attention, products: Products, reach: int) -> Table:
    tables = position_tables(products.levels, module.linear_pos.weight.float().numpy(), module.heads, reach)
    names = []
    for name, array in tables.items():
        shape: list[str | int] = [*array.shape[:2], "P"] if array.ndim == 3 else [1]
        names.append(graph.input(f"{name}.{index}", array.dtype.type, shape, default=array))
    return Table(*names)
