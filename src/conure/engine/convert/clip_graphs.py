"""A network's encoder as ONNX graphs for whole clips, written from its modules.

Two graphs compute what `Network.encode` does, for one clip. The front takes mel [B, T, F] of pieces to what the
subsampling projects, [B, S, C]. The encoder takes that for all of the clip and, where the model has a language
prompt, its slot [1]; it gives encoded [1, S, D]. Tests hold the two forms equal.

One clip needs no masks, no step is computed in vain, and its numbers depend on nothing beside it. Clips of some
seconds keep a CPU as busy as batches of them do.

What changes in form: scales, halves and batch norms are folded into the weights beside them; layers with the
same input share its quantisation; attention is one fused node per span of queries; each layer's projections of
distances are a table, which depends on the weights alone. It reaches 40 s; for longer clips others are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from conure.engine.backends.positions import position_tables
from conure.engine.convert.graph_names import ENCODER_FILE, FRONT_FILE, REACH, STREAM_FILE
from conure.engine.convert.onnx_attention import ClipView, LocalView, WholeView
from conure.engine.convert.onnx_global_attention import GlobalView
from conure.engine.convert.onnx_graph import Graph, save_graph, save_graphs
from conure.engine.convert.onnx_layers import LayerWriter, convolution2d
from conure.engine.convert.quantize import Products, Table
from conure.engine.convert.stream_graph import write_step
from conure.models.attention import Attention
from conure.models.config import AttentionContext
from conure.models.conformer import Layer
from conure.models.network import Network
from conure.models.subsampling import Subsampling

__all__ = ["export_front", "export_network"]


@torch.inference_mode()
def export_network(
    network: Network,
    folder: Path,
    products: Products,
    by_row: Products,
    context: AttentionContext | None = None,
) -> None:
    """Writes the graphs and their weights into `folder`: for clips, and for streams where the network is cache-aware.

    Clips are multiplied by `products`, rows of different streams by `by_row`. Both sorts of graphs read the same
    weights. The front stays in float32: it is small and sensitive.
    """
    context = context or network.config.encoder.contexts[0]
    export_front(network.encoder.pre_encode, folder)
    encoders = {folder / ENCODER_FILE: lambda graph: _encoder(graph, network, products, context)}
    if network.config.encoder.is_cache_aware:
        encoders[folder / STREAM_FILE] = lambda graph: write_step(graph, network, by_row)
    save_graphs((folder / ENCODER_FILE).with_suffix(".weights"), encoders)


@torch.inference_mode()
def export_front(module: Subsampling, folder: Path) -> None:
    save_graph(folder / FRONT_FILE, lambda graph: _front(graph, module))


def _front(graph: Graph, module: Subsampling) -> None:
    x = graph.op("Unsqueeze", graph.input("mel", np.float32, ["B", "T", "F"]), graph.ints(1))
    lead = 2 if module.causal else 1
    for stride, mix in ((0, None), (2, 3), (5, 6)):
        x = convolution2d(graph, x, module.conv[stride], strides=[2, 2], pads=[lead, lead, 1, 1])
        if mix is not None:
            x = convolution2d(graph, x, module.conv[mix])
        x = graph.op("Relu", x)
    x = graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 1, 3]), graph.ints(0, 0, -1))
    graph.output("x", x, np.float32, ["B", "S", module.out.in_features])


def _encoder(graph: Graph, network: Network, products: Products, context: AttentionContext) -> None:
    encoder, config = network.encoder, network.config.encoder
    x = graph.input("x", np.float32, [1, "S", encoder.pre_encode.out.in_features])
    layers, reach = cast(list[Layer], list(encoder.layers)), 2 * context.left if config.local else REACH
    tables = [_table(graph, index, layer.self_attn, products, reach) for index, layer in enumerate(layers)]
    if config.global_tokens and config.local:
        view: ClipView = GlobalView(graph, x, context.left, config)
    elif config.local:
        view = LocalView(graph, x, context.left)
    else:
        view = WholeView(graph, x, tables[0].value, config, context)
    writer = LayerWriter(graph, products, view, has_global_steps=isinstance(view, GlobalView))
    x = writer.layers(encoder, writer.subsampled(encoder, x), tables)
    if network.prompt is not None:
        x = writer.apply_prompt(network.prompt, x, graph.input("prompts", np.int64, [1]))
    graph.output("encoded", x, np.float32, [1, "S", config.width])


def _table(graph: Graph, index: int, module: Attention, products: Products, reach: int) -> Table:
    kept = position_tables(products.levels, module.linear_pos.weight.float().numpy(), module.heads, reach)
    names = []
    for name, array in kept.items():
        shape: list[str | int] = [*array.shape[:2], "P"] if array.ndim == 3 else [1]
        names.append(graph.input(f"{name}.{index}", array.dtype.type, shape, default=array))
    return Table(*names)
