"""Names shared by the exporter and the runners of ONNX graphs: files, version, inputs and outputs."""

from __future__ import annotations

import numpy as np

from conure.models.config import AttentionContext

__all__ = [
    "UPDATED_PREFIX",
    "CONTEXT_INPUT",
    "ENCODER_FILE",
    "EXPORT_VERSION",
    "SUBSAMPLING_GRAPH_FILE",
    "HEAD_TENSORS",
    "JOINT_FILE",
    "POOLS",
    "POSITIONS",
    "PREDICTOR_FILE",
    "REACH",
    "STREAM_FILE",
    "WEIGHTS_FILE",
    "context_values",
]

SUBSAMPLING_GRAPH_FILE, ENCODER_FILE, STREAM_FILE = "front.onnx", "encoder.onnx", "stream.onnx"
PREDICTOR_FILE, JOINT_FILE = "predictor.onnx", "joint.onnx"
WEIGHTS_FILE = "model.safetensors"
"""Weights that are in no graph."""

HEAD_TENSORS = ("joint.enc.", "ctc_head.")
"""Name prefixes of the heads' tensors that are used once per clip."""
POSITIONS = "encoder.layers.{}.self_attn.linear_pos.weight"

EXPORT_VERSION = 15
"""Increase it when the format of the folder changes; older folders are then converted again."""

REACH = 512
"""Largest distance in the graph's tables, in steps."""

POOLS = ("keys", "values", "filtered")
"""State pools of each layer of the streaming graph; the names end in the layer's number."""

UPDATED_PREFIX = "after."
"""Name prefix of the output for an updated pool."""

CONTEXT_INPUT = "around"
"""Name of the input with the attention context of unified models, which may change from clip to clip."""

END = 2**62


def context_values(context: AttentionContext) -> np.ndarray:
    """Chunk, left and right context [3]. No chunk counts as one step, unlimited context as END."""
    left, right = (END if side < 0 else side for side in (context.left, context.right))
    return np.array([context.chunk or 1, left, right])
