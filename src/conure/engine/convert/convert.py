"""Converts a checkpoint to a folder of ONNX graphs and packed weights; see `converted_folder.py`."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from conure.engine.convert.clip_graphs import export_network
from conure.engine.convert.converted_folder import MANIFEST, PROBE, Precision, sampled_digest
from conure.engine.convert.graph_names import EXPORT_VERSION, HEAD_TENSORS, POSITIONS
from conure.engine.convert.head_graphs import export_heads
from conure.engine.convert.pack_encoder import supports_native_kernels, unsupported_feature, write_int8_encoder
from conure.engine.convert.pack_heads import write_heads
from conure.engine.convert.pack_subsampling import write_subsampling
from conure.engine.convert.quantize import Float32, Int8, Int8ByRow, Products
from conure.engine.convert.saturation import saturates, saturation_probe
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.loader import build_network
from conure.native.library import has_native_kernels

__all__ = ["convert"]

log = logging.getLogger(__name__)


def convert(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    """Writes the folder. Weights keep their stored type until they are written, to save memory."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = saturation_probe()
    reduced = saturates(graph)
    stored = next(tensor.dtype for name, tensor in checkpoint.tensors.items() if name.startswith("encoder."))
    network, log_mel = build_network(checkpoint, stored)
    by_row: Products = Int8ByRow(reduced) if precision == "int8" else Float32()
    export_network(network, folder, Int8(reduced) if precision == "int8" else Float32(), by_row)
    export_heads(network, folder, by_row)
    packable = precision == "int8" and supports_native_kernels(network)
    if packable and has_native_kernels():
        write_int8_encoder(network, folder)
    elif precision == "int8" and has_native_kernels():
        log.info(
            "%s runs in ONNX Runtime: native kernels do not support %s", checkpoint.name, unsupported_feature(network)
        )
    if has_native_kernels():
        write_subsampling(network.encoder.pre_encode, folder, int8=precision == "int8")
        write_heads(network, folder, int8=precision == "int8")
    prefixes = (*HEAD_TENSORS, *(POSITIONS.format(layer) for layer in range(checkpoint.config.encoder.layers)))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefixes)}
    reduced_checkpoint = replace(checkpoint, tensors=tensors, window=log_mel.window, filterbank=log_mel.filterbank)
    conure_file.save(reduced_checkpoint, folder, torch.float32)  # read by NumPy, which has no bfloat16
    (folder / PROBE).write_bytes(graph)
    files = {path.name: sampled_digest(path) for path in sorted(folder.iterdir())}
    manifest = {
        "version": EXPORT_VERSION,
        "precision": precision,
        "reduced": reduced,
        "packable": packable,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
