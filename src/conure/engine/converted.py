"""What a checkpoint becomes for ONNX Runtime: a folder with its graphs, its heads and its tokenizer.

Converting takes a while, so the folder is kept and found again by what the checkpoint's file looks like. It is
made beside its place and moved there whole; onnx.json in it tells how it was made and what its files must look
like. A folder that is cut off, older than the exporter, wrong for this processor or without what the kernels on this
machine read is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from torch import Tensor

from conure.engine.export import EXPORT_VERSION, export_network
from conure.engine.kernel_decoder import KernelDecoder
from conure.engine.kernel_front import KernelFront
from conure.engine.onnx_heads import HEAD_TENSORS, export_heads
from conure.engine.packed import Packed, is_packable, write_packed
from conure.engine.packed_front import write_front
from conure.engine.packed_heads import write_heads
from conure.engine.quantize import Float32, Int8, Int8ByRow, Products, probe, saturates
from conure.errors import ModelError
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.loading import build_network
from conure.native.library import available

__all__ = ["Converted", "Precision", "convert", "converted_folder", "fingerprint", "is_usable", "read_converted"]

log = logging.getLogger(__name__)

Precision = Literal["int8", "fp32"]

MANIFEST, PROBE = "onnx.json", "probe.onnx"
POSITIONS = "encoder.layers.{}.self_attn.linear_pos.weight"

SAMPLES, SAMPLE_BYTES = 128, 4096
"""Of a file that are looked at to know it again: all of what is small, the ends and places between of weights."""


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint without its graphs."""

    folder: Path
    checkpoint: Checkpoint
    """Its tensors are the heads alone."""
    precision: Precision
    products: Products
    position_weights: list[Tensor]
    """Of each layer, for clips longer than the tables in the graph reach."""


def converted_folder(source: Path, precision: Precision, cache: Path, load: Callable[[], Checkpoint]) -> Path:
    """The folder made of the checkpoint at `source`, a file or a folder; `load` reads it if it must be made.

    Raises ModelError where the cache cannot be written.
    """
    folder = cache / "onnx" / f"{source.stem}-{precision}-{fingerprint(source)}"
    if is_usable(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not is_usable(folder):
                _make(folder, load(), precision)
    except OSError as error:
        hint = "the cache needs room for the converted model; another folder may be set with CONURE_CACHE"
        raise ModelError(f"{source.name} cannot be converted into {cache}: {error.strerror}", hint) from error
    return folder


def _make(folder: Path, checkpoint: Checkpoint, precision: Precision) -> None:
    log.info("converting %s to onnx %s, once", checkpoint.name, precision)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        convert(checkpoint, partial, precision)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    """Writes the folder. Weights stay in the type they are stored in until their turn comes."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = probe()
    reduced = saturates(graph)
    stored = next(tensor.dtype for name, tensor in checkpoint.tensors.items() if name.startswith("encoder."))
    network, _ = build_network(checkpoint, stored)
    by_row: Products = Int8ByRow(reduced) if precision == "int8" else Float32()
    export_network(network, folder, _products(precision, reduced), by_row)
    export_heads(network, folder, by_row)
    packable = precision == "int8" and is_packable(network)
    if packable and available():
        write_packed(network, folder)
    if available():
        write_heads(network, folder, int8=precision == "int8")
        write_front(network.encoder.pre_encode, folder, int8=precision == "int8")
    kept = (*HEAD_TENSORS, *(POSITIONS.format(layer) for layer in range(checkpoint.config.encoder.layers)))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(kept)}
    conure_file.save(replace(checkpoint, tensors=tensors), folder)
    (folder / PROBE).write_bytes(graph)
    files = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    manifest = {
        "version": EXPORT_VERSION,
        "precision": precision,
        "reduced": reduced,
        "packable": packable,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def is_usable(folder: Path) -> bool:
    """Whether the folder is whole, of this exporter and right on this processor."""
    try:
        manifest = _read_manifest(folder)
        if manifest["version"] != EXPORT_VERSION:
            return False
        if available() and not _is_packed(folder, manifest):
            return False
        whole = all(_digest(folder / name) == digest for name, digest in manifest["files"].items())
        return whole and (manifest["precision"] == "fp32" or manifest["reduced"] or not saturates_here(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_packed(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether what kernels read is there."""
    return (
        KernelFront.is_in(folder) and KernelDecoder.is_in(folder) and (Packed.is_in(folder) or not manifest["packable"])
    )


def saturates_here(folder: Path) -> bool:
    return saturates((folder / PROBE).read_bytes())


def read_converted(folder: Path) -> Converted:
    """Raises BadCheckpoint where the folder is broken; `is_usable` tells before."""
    manifest = _read_manifest(folder)
    checkpoint = conure_file.read(folder, whole=False)
    heads = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(HEAD_TENSORS)}
    layers = range(checkpoint.config.encoder.layers)
    positions = [checkpoint.tensors[POSITIONS.format(layer)] for layer in layers]
    precision: Precision = manifest["precision"]
    products = _products(precision, manifest["reduced"])
    return Converted(folder, replace(checkpoint, tensors=heads), precision, products, positions)


def fingerprint(source: Path) -> str:
    """Of a checkpoint's file or folder: sizes, times and samples of the contents."""
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.stat().st_mtime_ns} {_digest(path)}".encode())
    return digest.hexdigest()[:16]


def _digest(path: Path) -> str:
    """Of a file's size and samples."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(SAMPLES):
            file.seek(max(size - SAMPLE_BYTES, 0) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _products(precision: Precision, reduced: bool) -> Products:
    return Int8(reduced) if precision == "int8" else Float32()


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest
