"""Converted models for the CPU: cached folders with graphs, packed weights, heads and tokenizer.

Conversion takes a while, so folders are cached by a fingerprint of the checkpoint. A folder is written under a
temporary name and then renamed. Its onnx.json records how it was made and digests of its files. A folder is converted
again if it is incomplete, has an old version, is inaccurate on this processor or lacks weights for the native kernels.
Reading a folder does not import torch; converting does.
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
    "ensure_converted",
    "sampled_digest",
    "fingerprint",
    "is_usable",
    "read_converted",
]

log = logging.getLogger(__name__)

Precision = Literal["int8", "fp32"]

MANIFEST, PROBE = "onnx.json", "probe.onnx"

DIGEST_SAMPLES, DIGEST_SAMPLE_BYTES = 128, 4096
"""Number and size of the samples of a file's digest: they cover small files completely, and large ones at intervals."""


@dataclass(frozen=True)
class ConvertedModel:
    folder: Path
    checkpoint: Checkpoint
    """Has no tensors."""
    precision: Precision
    levels: int | None
    """Largest magnitude of the int8 weights of clips; None for float32."""

    def heads(self) -> dict[str, np.ndarray]:
        """Weights of heads that run once per clip and are in no graph."""
        return _read_arrays(self.folder, lambda name: name.startswith(HEAD_TENSORS))

    def position_weights(self) -> list[np.ndarray]:
        """Weights of each layer that project distances, for clips longer than the tables in the graph."""
        names = [POSITIONS.format(layer) for layer in range(self.checkpoint.config.encoder.layers)]
        arrays = _read_arrays(self.folder, set(names).__contains__)
        return [arrays[name] for name in names]

    def feature_extractor(self) -> MelExtractor:
        """The mel extractor with the window and filterbank of the checkpoint."""
        arrays = _read_arrays(self.folder, (WINDOW, FILTERBANK).__contains__)
        return MelExtractor(self.checkpoint.config.mel, arrays[WINDOW], arrays[FILTERBANK])


def _read_arrays(folder: Path, select: Callable[[str], bool]) -> dict[str, np.ndarray]:
    try:
        with safe_open(os.fspath(folder / WEIGHTS_FILE), "np") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys() if select(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{folder.name} has no valid {WEIGHTS_FILE}: {str(error)[:80]}") from error


def ensure_converted(source: Path, precision: Precision, cache: Path, load: Callable[[], Checkpoint]) -> Path:
    """The converted folder of the checkpoint at `source`, a file or a folder. Calls `load` if it has to be converted.

    Raises ModelError if the cache cannot be written.
    """
    folder = cache / "onnx" / f"{source.stem}-{precision}-{fingerprint(source)}"
    if is_usable(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not is_usable(folder):
                _convert(folder, load(), precision)
    except (OSError, SafetensorError) as error:
        reason = (
            no_space_message(folder.parent, _checkpoint_bytes(source)) if is_disk_full(error) else _error_reason(error)
        )
        hint = "free disk space for the converted model, or set CONURE_CACHE to another folder"
        raise ModelError(f"{source.name} cannot be converted into {cache}: {reason}", hint) from error
    return folder


def _checkpoint_bytes(source: Path) -> int:
    """Size of the checkpoint, an upper bound of the size of the converted model."""
    return sum(path.stat().st_size for path in _files(source))


def _error_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)[:80]


def _convert(folder: Path, checkpoint: Checkpoint, precision: Precision) -> None:
    log.info("converting %s to onnx %s (only once)", checkpoint.name, precision)
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
    """Whether the folder is complete, of this version, and accurate on this processor."""
    try:
        manifest = _read_manifest(folder)
        if manifest["version"] != EXPORT_VERSION:
            return False
        if has_native_kernels() and not _has_native_weights(folder, manifest):
            return False
        is_complete = all(sampled_digest(folder / name) == digest for name, digest in manifest["files"].items())
        return is_complete and (manifest["precision"] == "fp32" or manifest["reduced"] or not _saturates(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _has_native_weights(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the folder has the weights that the native kernels need."""
    has_heads = NativeSubsampling.exists_in(folder) and NativeDecoder.exists_in(folder)
    return has_heads and (Int8Weights.exists_in(folder) or not manifest["packable"])


def _saturates(folder: Path) -> bool:
    return saturates((folder / PROBE).read_bytes())


def read_converted(folder: Path) -> ConvertedModel:
    """Reads a converted folder. Raises BadCheckpoint if it is damaged; check `is_usable` before."""
    try:
        manifest = _read_manifest(folder)
        precision: Precision = manifest["precision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{folder.name} has no valid {MANIFEST}") from error
    levels = None if precision == "fp32" else REDUCED_LEVELS if manifest["reduced"] else LEVELS
    return ConvertedModel(folder, read_manifest(folder), precision, levels)


def fingerprint(source: Path) -> str:
    """Hash of a checkpoint's files: their sizes, modification times and samples of their contents."""
    digest = hashlib.sha256()
    for path in _files(source):
        digest.update(f"{path.stat().st_mtime_ns} {sampled_digest(path)}".encode())
    return digest.hexdigest()[:16]


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())


def sampled_digest(path: Path) -> str:
    """Hash of a file's size and samples of its contents."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(DIGEST_SAMPLES):
            file.seek(max(size - DIGEST_SAMPLE_BYTES, 0) * index // (DIGEST_SAMPLES - 1))
            digest.update(file.read(DIGEST_SAMPLE_BYTES))
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest
