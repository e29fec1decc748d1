"""What a checkpoint became for a CPU: a folder with its graphs, packed weights, heads and tokenizer.

Converting takes a while, so the folder is kept and found again by what the checkpoint's file looks like. It is
made beside its place and moved there whole; onnx.json in it tells how it was made and what its files must look
like. A folder that is cut off, older than the exporter, wrong for this processor or without what the kernels on this
machine read is made anew. Reading one loads no torch; making one does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from conure.audio.mel import MelExtractor
from conure.engine.backends.cpu.int8_weights import Int8Weights
from conure.engine.backends.cpu.native_decoder import NativeDecoder
from conure.engine.backends.cpu.native_subsampling import NativeSubsampling
from conure.engine.convert.graph_names import EXPORT_VERSION, HEAD_TENSORS, POSITIONS, WEIGHTS_FILE
from conure.engine.convert.saturation import LEVELS, REDUCED_LEVELS, saturates
from conure.errors import BadCheckpoint, ModelError
from conure.models.checkpoint import Checkpoint
from conure.models.disk_space import is_disk_full, no_space_message
from conure.models.manifest import FILTERBANK, WINDOW, read_manifest
from conure.native.library import has_native_kernels

__all__ = [
    "MANIFEST",
    "PROBE",
    "ConvertedModel",
    "Precision",
    "converted_folder",
    "digest_of",
    "fingerprint",
    "is_usable",
    "read_converted",
]

log = logging.getLogger(__name__)

Precision = Literal["int8", "fp32"]

MANIFEST, PROBE = "onnx.json", "probe.onnx"

SAMPLES, SAMPLE_BYTES = 128, 4096
"""Of a file that are looked at to know it again: all of what is small, the ends and places between of weights."""


@dataclass(frozen=True)
class ConvertedModel:
    folder: Path
    checkpoint: Checkpoint
    """Without tensors."""
    precision: Precision
    levels: int | None
    """Of the bytes of weights of clips; None in float32."""

    def heads(self) -> dict[str, np.ndarray]:
        """What is asked once a clip and is in no graph."""
        return _arrays(self.folder, lambda name: name.startswith(HEAD_TENSORS))

    def position_weights(self) -> list[np.ndarray]:
        """Of each layer, for clips longer than the tables in the graph reach."""
        names = [POSITIONS.format(layer) for layer in range(self.checkpoint.config.encoder.layers)]
        arrays = _arrays(self.folder, set(names).__contains__)
        return [arrays[name] for name in names]

    def feature_extractor(self) -> MelExtractor:
        """With the window and the filterbank of the network's own."""
        own = _arrays(self.folder, (WINDOW, FILTERBANK).__contains__)
        return MelExtractor(self.checkpoint.config.mel, own[WINDOW], own[FILTERBANK])


def _arrays(folder: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    try:
        with safe_open(os.fspath(folder / WEIGHTS_FILE), "np") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys() if wanted(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{folder.name} has no whole {WEIGHTS_FILE}: {str(error)[:80]}") from error


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
    except (OSError, SafetensorError) as error:
        reason = no_space_message(folder.parent, _size_of(source)) if is_disk_full(error) else _reason(error)
        hint = "the cache needs room for the converted model; another folder may be set with CONURE_CACHE"
        raise ModelError(f"{source.name} cannot be converted into {cache}: {reason}", hint) from error
    return folder


def _size_of(source: Path) -> int:
    """As much as a converted model takes at most."""
    return sum(path.stat().st_size for path in _files(source))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)[:80]


def _make(folder: Path, checkpoint: Checkpoint, precision: Precision) -> None:
    log.info("converting %s to onnx %s, once", checkpoint.name, precision)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        from conure.engine.convert.convert import convert  # noqa: PLC0415  it loads torch

        convert(checkpoint, partial, precision)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_usable(folder: Path) -> bool:
    """Whether the folder is whole, of this exporter and right on this processor."""
    try:
        manifest = _read_manifest(folder)
        if manifest["version"] != EXPORT_VERSION:
            return False
        if has_native_kernels() and not _is_packed(folder, manifest):
            return False
        whole = all(digest_of(folder / name) == digest for name, digest in manifest["files"].items())
        return whole and (manifest["precision"] == "fp32" or manifest["reduced"] or not saturates_here(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _is_packed(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether what kernels read is there."""
    both = NativeSubsampling.is_in(folder) and NativeDecoder.is_in(folder)
    return both and (Int8Weights.is_in(folder) or not manifest["packable"])


def saturates_here(folder: Path) -> bool:
    return saturates((folder / PROBE).read_bytes())


def read_converted(folder: Path) -> ConvertedModel:
    """Raises BadCheckpoint where the folder is broken; `is_usable` tells before."""
    try:
        manifest = _read_manifest(folder)
        precision: Precision = manifest["precision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{folder.name} has no whole {MANIFEST}") from error
    levels = None if precision == "fp32" else REDUCED_LEVELS if manifest["reduced"] else LEVELS
    return ConvertedModel(folder, read_manifest(folder), precision, levels)


def fingerprint(source: Path) -> str:
    """Of a checkpoint's file or folder: sizes, times and samples of the contents."""
    digest = hashlib.sha256()
    for path in _files(source):
        digest.update(f"{path.stat().st_mtime_ns} {digest_of(path)}".encode())
    return digest.hexdigest()[:16]


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())


def digest_of(path: Path) -> str:
    """Of a file's size and samples."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(SAMPLES):
            file.seek(max(size - SAMPLE_BYTES, 0) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest
