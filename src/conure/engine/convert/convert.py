"""A checkpoint becomes the folder that `converted` reads."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from conure.engine.convert.clip_graphs import export_network
from conure.engine.convert.converted_folder import MANIFEST, PROBE, Precision, digest_of
from conure.engine.convert.graph_names import EXPORT_VERSION, HEAD_TENSORS, POSITIONS
from conure.engine.convert.head_graphs import export_heads
from conure.engine.convert.pack_encoder import is_packable, lacking, write_packed
from conure.engine.convert.pack_heads import write_heads
from conure.engine.convert.pack_subsampling import write_front
from conure.engine.convert.quantize import Float32, Int8, Int8ByRow, Products
from conure.engine.convert.saturation import probe, saturates
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.loader import build_network
from conure.native.library import has_native_kernels

__all__ = ["convert"]

log = logging.getLogger(__name__)


def convert(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    """Writes the folder. Weights stay in the type they are stored in until their turn comes."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = probe()
    reduced = saturates(graph)
    stored = next(tensor.dtype for name, tensor in checkpoint.tensors.items() if name.startswith("encoder."))
    network, front = build_network(checkpoint, stored)
    by_row: Products = Int8ByRow(reduced) if precision == "int8" else Float32()
    export_network(network, folder, Int8(reduced) if precision == "int8" else Float32(), by_row)
    export_heads(network, folder, by_row)
    packable = precision == "int8" and is_packable(network)
    if packable and has_native_kernels():
        write_packed(network, folder)
    elif precision == "int8" and has_native_kernels():
        log.info("%s runs in ONNX Runtime: native kernels have no %s", checkpoint.name, lacking(network))
    if has_native_kernels():
        write_front(network.encoder.pre_encode, folder, int8=precision == "int8")
        write_heads(network, folder, int8=precision == "int8")
    kept = (*HEAD_TENSORS, *(POSITIONS.format(layer) for layer in range(checkpoint.config.encoder.layers)))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(kept)}
    held = replace(checkpoint, tensors=tensors, window=front.window, filterbank=front.filterbank)
    conure_file.save(held, folder, torch.float32)  # NumPy, which reads it, has no bfloat16
    (folder / PROBE).write_bytes(graph)
    files = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    manifest = {
        "version": EXPORT_VERSION,
        "precision": precision,
        "reduced": reduced,
        "packable": packable,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
