"""What the graphs of a converted folder and whoever runs them agree on: their files, versions, names of inputs."""

from __future__ import annotations

import numpy as np

from conure.models.config import AttentionContext

__all__ = [
    "AFTER",
    "AROUND",
    "ENCODER_FILE",
    "EXPORT_VERSION",
    "FRONT_FILE",
    "HEAD_TENSORS",
    "JOINT_FILE",
    "POOLS",
    "POSITIONS",
    "PREDICTOR_FILE",
    "REACH",
    "STREAM_FILE",
    "WEIGHTS_FILE",
    "around",
]

FRONT_FILE, ENCODER_FILE, STREAM_FILE = "front.onnx", "encoder.onnx", "stream.onnx"
PREDICTOR_FILE, JOINT_FILE = "predictor.onnx", "joint.onnx"
WEIGHTS_FILE = "model.safetensors"
"""What no graph holds."""

HEAD_TENSORS = ("joint.enc.", "ctc_head.")
"""How the names of those begin that are asked once a clip."""
POSITIONS = "encoder.layers.{}.self_attn.linear_pos.weight"

EXPORT_VERSION = 15
"""Raise it when the folder changes: what was converted before is converted again."""

REACH = 512
"""Distances that the tables in the graph reach, in steps."""

POOLS = ("keys", "values", "filtered")
"""Of each layer of the streaming step; the name of a layer's pool ends in its number."""

AFTER = "after."
"""Begins the name of what a pool has become."""

AROUND = "around"
"""Name of the input that tells what a chunk sees around it, where that may change from clip to clip."""

END = 2**62


def around(context: AttentionContext) -> np.ndarray:
    """Chunk, left and right [3]; a chunk of one step where there is none, and an end that no clip reaches."""
    left, right = (END if side < 0 else side for side in (context.left, context.right))
    return np.array([context.chunk or 1, left, right])
