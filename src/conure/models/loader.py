"""Loads checkpoints by name or path and builds networks from them.

Every file format becomes the same `Checkpoint`. `checkpoint_paths` finds the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from conure.audio.features import LogMel
from conure.errors import BadCheckpoint, ModelError
from conure.models import conure_file
from conure.models.catalog import advertised_languages
from conure.models.checkpoint import Checkpoint, head_names
from conure.models.checkpoint_paths import find_checkpoint
from conure.models.config_values import first_few, short_repr
from conure.models.hf_folder import check_blank, declared_by_hugging_face, read_hf
from conure.models.hub_repository import Progress
from conure.models.nemo_config import NemoConfig
from conure.models.nemo_file import NemoFile, read_nemo
from conure.models.network import Network
from conure.models.weights import check_tensors, empty_network, from_hugging_face, from_nemo, infer_config
from conure.text.tokenizer import Tokenizer, read_tokenizer

__all__ = ["build_network", "describe", "load_checkpoint", "read_checkpoint"]


def load_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    cache: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """The checkpoint of a catalog name, alias, hub id, .nemo file or folder; it is downloaded if necessary."""
    return find_checkpoint(name_or_path, cache=cache, revision=revision, offline=offline, progress=progress).load()


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a .nemo file, a folder of transformers, a folder of Conure, or a folder that contains one .nemo file."""
    try:
        return _read_any(path)
    except ModelError as error:
        raise type(error)(f"{path.name}: {error.message}", error.hint) from error


def _read_any(path: Path) -> Checkpoint:
    if path.is_file():
        return _from_nemo(path)
    if conure_file.is_conure_folder(path):
        return conure_file.read(path)
    if archive := _one_archive(path):
        return _from_nemo(archive)
    if (path / "config.json").is_file():
        return _from_hugging_face(path)
    raise BadCheckpoint("the folder holds no checkpoint", "it needs a .nemo file, or a config.json and weights")


def _one_archive(folder: Path) -> Path | None:
    """The .nemo file of a folder; if there are several, the one with the folder's name. Raises BadCheckpoint."""
    archives = sorted(path for path in folder.glob("*.nemo") if path.is_file())
    named = [path for path in archives if path.stem == folder.resolve().name]
    if len(archives) > 1 and not named:
        names = first_few(path.name for path in archives)
        raise BadCheckpoint(f"the folder has several checkpoints: {names}", f"name one of them: {archives[0]}")
    return next(iter(named or archives), None)


def _from_nemo(path: Path) -> Checkpoint:
    raw = read_nemo(path)
    settings = NemoConfig(raw.config)
    settings.check_family()
    renamed = from_nemo(raw.tensors)
    config = infer_config(renamed, settings.declared())
    check_tensors(config, renamed.tensors)
    return Checkpoint(
        config=config,
        tensors=renamed.tensors,
        tokenizer=_nemo_tokenizer(raw, settings, config.vocabulary),
        window=renamed.window,
        filterbank=renamed.filterbank,
        languages=advertised_languages(config.prompt_ids),
        name=path.stem,
        source=os.fspath(path),
    )


def _nemo_tokenizer(raw: NemoFile, settings: NemoConfig, vocabulary: int) -> Tokenizer:
    kind = settings.get("tokenizer.type")
    if kind == "bpe":
        model_path = settings.get("tokenizer.model_path")
        name = model_path.removeprefix("nemo:") if isinstance(model_path, str) else ""
        if name not in raw.files:
            raise BadCheckpoint(f"the archive has no tokenizer {short_repr(model_path)}")
        return read_tokenizer("tokenizer.model", raw.files[name], vocabulary)
    labels = settings.get("decoder.vocabulary") or settings.get("labels")
    if kind is not None or not isinstance(labels, list):
        raise BadCheckpoint(f"tokenizer.type is {short_repr(kind)}; Conure supports 'bpe' and plain labels")
    if not all(isinstance(label, str) for label in labels):
        raise BadCheckpoint("the vocabulary contains labels that are not text")
    return read_tokenizer("labels.json", json.dumps(labels).encode(), vocabulary)


def _from_hugging_face(folder: Path) -> Checkpoint:
    raw = read_hf(folder)
    renamed = from_hugging_face(raw.tensors)
    config = infer_config(renamed, declared_by_hugging_face(raw))
    check_blank(raw, config)
    check_tensors(config, renamed.tensors)
    return Checkpoint(
        config=config,
        tensors=renamed.tensors,
        tokenizer=read_tokenizer(*raw.tokenizer, config.vocabulary),
        languages=advertised_languages(config.prompt_ids),
        name=folder.resolve().name,
        source=os.fspath(folder),
    )


def build_network(
    checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Network, LogMel]:
    """The network in evaluation mode and its feature extractor.

    Weights that already have `dtype` and are on `device` are used without a copy; the feature extractor stays
    in fp32. The network must not be trained in place if its weights are mapped from a file.
    """
    config = checkpoint.config
    check_tensors(config, checkpoint.tensors)
    network = empty_network(config)
    weights = {name: tensor.to(device, dtype) for name, tensor in checkpoint.tensors.items()}
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    weights |= {name: torch.zeros((), dtype=torch.long, device=device) for name in counters}
    network.load_state_dict(weights, strict=True, assign=True)
    mel = LogMel(config.mel, *(None if t is None else t.float() for t in (checkpoint.window, checkpoint.filterbank)))
    return network.eval().requires_grad_(False), mel.to(device)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The properties that `conure models info` prints, as plain values."""
    config, encoder = checkpoint.config, checkpoint.config.encoder
    return {
        "name": checkpoint.name,
        "source": checkpoint.source,
        "family": checkpoint.family,
        "heads": list(head_names(config)),
        "languages": list(checkpoint.languages),
        "parameters": checkpoint.parameter_count,
        "megabytes": round(checkpoint.megabytes, 1),
        "stored_as": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.tensors.values()}),
        "live": encoder.is_cache_aware,
        "layers": encoder.layers,
        "width": encoder.width,
        "attention_heads": encoder.heads,
        "mel_features": encoder.features,
        "normalize": config.mel.normalize,
        "vocabulary": config.vocabulary,
        "durations": list(config.durations),
        "predictor": [config.predictor_layers, config.predictor_width],
        "joint_width": config.joint_width,
        "attention": "local" if encoder.local else encoder.style,
        "contexts": [[c.left, c.right] if c.chunk is None else [c.left, c.chunk, c.right] for c in encoder.contexts],
        "global_steps": encoder.global_tokens,
        "prompts": config.prompts,
        "speaker_kernels": list(encoder.speaker_layers),
    }
