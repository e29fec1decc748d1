"""Checkpoint folders in Conure's format: config.json, model.safetensors with Conure's names, the original tokenizer.

config.json holds the complete config of `config.py`, so nothing has to be inferred; the tensors must still agree with
it. config.json is written last: a folder without it is incomplete.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from conure.errors import BadCheckpoint
from conure.models.checkpoint import Checkpoint
from conure.models.config import NetworkConfig
from conure.models.hf_folder import read_safetensors
from conure.models.manifest import CONFIG, FILTERBANK, WINDOW, describe_checkpoint, is_conure_folder, read_manifest
from conure.models.weights import Renamed, check_tensors, declared_by, from_conure, infer_config, is_learned

__all__ = ["is_conure_folder", "read", "save"]

WEIGHTS = "model.safetensors"


def save(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a checkpoint; `dtype` stores the weights in another type (window and filterbank keep theirs)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    weights = {name: t if dtype is None else t.to(dtype) for name, t in checkpoint.tensors.items() if is_learned(name)}
    front = {WINDOW: checkpoint.window, FILTERBANK: checkpoint.filterbank}
    weights |= {name: tensor for name, tensor in front.items() if tensor is not None}
    partial = folder / (WEIGHTS + ".partial")
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, partial)
    partial.replace(folder / WEIGHTS)
    (folder / checkpoint.tokenizer.file_name).write_bytes(checkpoint.tokenizer.data)
    text = json.dumps(describe_checkpoint(checkpoint), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Checkpoint:
    """Reads a folder. Raises BadCheckpoint if it is broken or inconsistent."""
    manifest = read_manifest(folder)
    renamed = from_conure(read_safetensors(folder / WEIGHTS))
    _check_config(manifest.config, renamed)
    check_tensors(manifest.config, renamed.tensors)
    return dataclasses.replace(manifest, tensors=renamed.tensors, window=renamed.window, filterbank=renamed.filterbank)


def _check_config(config: NetworkConfig, renamed: Renamed) -> None:
    """Raises BadCheckpoint if the tensors imply another config, before a network of that shape is built."""
    inferred = infer_config(renamed, declared_by(config))
    inferred = dataclasses.replace(
        inferred, encoder=dataclasses.replace(inferred.encoder, dropout=config.encoder.dropout)
    )
    for name, value in dataclasses.asdict(inferred).items():
        if value != dataclasses.asdict(config)[name]:
            raise BadCheckpoint(f"network.{name} in {CONFIG} does not agree with the tensors in {WEIGHTS}")
