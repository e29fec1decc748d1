"""Conure's own folder: config.json, model.safetensors under our names, the tokenizer as it came.

config.json is the network's config as it is in `config.py`, so that nothing needs to be guessed; the tensors
must agree with it all the same. config.json is written last: a folder without it was not finished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from conure.errors import BadCheckpoint
from conure.models.checkpoint import Checkpoint
from conure.models.config import NetworkConfig
from conure.models.hf_folder import read_json, read_safetensors
from conure.models.weights import Renamed, check_tensors, from_conure, infer_config, is_learned, told_by
from conure.text.tokenizer import read_tokenizer

__all__ = ["is_conure_folder", "read", "save"]

FORMAT = "conure"
VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
WINDOW, FILTERBANK = "mel.window", "mel.filterbank"
MAX_TOKENIZER_BYTES = 64 * 2**20


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
    text = json.dumps(_describe(checkpoint), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": checkpoint.name,
        "family": checkpoint.family,
        "languages": list(checkpoint.languages),
        "tokenizer": checkpoint.tokenizer.file_name,
        "network": dataclasses.asdict(checkpoint.config),
    }


def is_conure_folder(folder: Path) -> bool:
    """Whether a folder is in this layout, finished or not quite right."""
    return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("format") == FORMAT


def read(folder: Path, *, whole: bool = True) -> Checkpoint:
    """Reads a folder back. Raises BadCheckpoint where it is broken or disagrees with itself.

    `whole=False` takes a folder that holds some of the network's tensors, as they are.
    """
    told = read_json(folder / CONFIG)
    if told.get("format") != FORMAT or told.get("version") != VERSION:
        found = f"format {told.get('format')!r}, version {told.get('version')!r}"
        raise BadCheckpoint(f"{folder.name} has {found}; this Conure reads {FORMAT!r}, version {VERSION}")
    config = cast("NetworkConfig", _build(NetworkConfig, told.get("network"), "network"))
    held = from_conure(read_safetensors(folder / WEIGHTS))
    if whole:
        _check_config(config, held)
        check_tensors(config, held.tensors)
    name, languages = told.get("name", ""), told.get("languages", [])
    if not isinstance(name, str) or not isinstance(languages, list):
        raise BadCheckpoint(f"{CONFIG} has a name or languages of another kind")
    return Checkpoint(
        config=config,
        tensors=held.tensors,
        tokenizer=read_tokenizer(*_tokenizer_file(folder, told.get("tokenizer")), config.vocabulary),
        window=held.window,
        filterbank=held.filterbank,
        languages=tuple(map(str, languages)),
        name=name,
        source=os.fspath(folder),
    )


def _check_config(config: NetworkConfig, held: Renamed) -> None:
    """The tensors must tell the same shape, before a network of that shape is built."""
    if not config.encoder.contexts:
        raise BadCheckpoint(f"network.encoder.contexts in {CONFIG} is empty")
    inferred = infer_config(held, told_by(config))
    inferred = dataclasses.replace(
        inferred, encoder=dataclasses.replace(inferred.encoder, dropout=config.encoder.dropout)
    )
    for name, value in dataclasses.asdict(inferred).items():
        if value != dataclasses.asdict(config)[name]:
            raise BadCheckpoint(f"network.{name} in {CONFIG} is not what {WEIGHTS} holds")


def _tokenizer_file(folder: Path, name: Any) -> tuple[str, bytes]:
    if not isinstance(name, str) or Path(name).name != name:
        raise BadCheckpoint(f"{CONFIG} names a tokenizer outside the folder: {name!r}")
    try:
        if (folder / name).stat().st_size > MAX_TOKENIZER_BYTES:
            raise BadCheckpoint(f"{name} has more than {MAX_TOKENIZER_BYTES:,} bytes")
        return name, (folder / name).read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{folder.name} has no readable {name}: {error.strerror}") from error


def _build(kind: Any, value: Any, path: str) -> Any:
    """A value of JSON as the type that the config's dataclasses ask for, checked all the way down."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path)
    if origin is tuple and isinstance(value, list):
        inner = [parts[0]] * len(value) if parts[-1] is ... else list(parts)
        if len(inner) == len(value):
            return tuple(_build(one, item, path) for one, item in zip(inner, value, strict=True))
    elif origin is typing.Literal and value in parts:
        return value
    elif origin is types.UnionType and value is None and types.NoneType in parts:
        return None
    elif origin is types.UnionType:
        return _build(parts[0], value, path)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise BadCheckpoint(f"{path} in {CONFIG} is {str(value)[:40]!r}, which does not fit")


def _build_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} in {CONFIG} is missing or no object")
    hints = typing.get_type_hints(kind)
    if unknown := value.keys() - hints.keys():
        raise BadCheckpoint(f"{path} in {CONFIG} has settings of a newer Conure: {', '.join(sorted(unknown))}")
    return kind(**{name: _build(hints[name], inner, f"{path}.{name}") for name, inner in value.items()})
