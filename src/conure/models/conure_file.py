"""Conure's own folder: config.json, model.safetensors under our names, the tokenizer as it came.

config.json is the network's config as it is in `config.py`, so that nothing needs to be guessed; the tensors
must agree with it all the same. config.json is written last: a folder without it was not finished.
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
    """Writes a checkpoint; `dtype` stores the weights in another type (the front-end stays as it is)."""
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
    """Reads a folder back. Raises BadCheckpoint where it is broken or disagrees with itself."""
    described = read_manifest(folder)
    held = from_conure(read_safetensors(folder / WEIGHTS))
    _check_config(described.config, held)
    check_tensors(described.config, held.tensors)
    return dataclasses.replace(described, tensors=held.tensors, window=held.window, filterbank=held.filterbank)


def _check_config(config: NetworkConfig, held: Renamed) -> None:
    """The tensors must tell the same shape, before a network of that shape is built."""
    inferred = infer_config(held, declared_by(config))
    inferred = dataclasses.replace(
        inferred, encoder=dataclasses.replace(inferred.encoder, dropout=config.encoder.dropout)
    )
    for name, value in dataclasses.asdict(inferred).items():
        if value != dataclasses.asdict(config)[name]:
            raise BadCheckpoint(f"network.{name} in {CONFIG} is not what {WEIGHTS} holds")
