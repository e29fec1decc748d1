"""All of Conure's own folder but its tensors: config.json, which holds the network's config, and the tokenizer."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any, cast

from conure.errors import BadCheckpoint
from conure.models.checkpoint import Checkpoint
from conure.models.config import NetworkConfig
from conure.models.json_file import read_bounded, read_json
from conure.text.tokenizer import read_tokenizer

__all__ = ["CONFIG", "FILTERBANK", "WINDOW", "describe_checkpoint", "is_conure_folder", "read_described"]

FORMAT = "conure"
VERSION = 1
CONFIG = "config.json"
WINDOW, FILTERBANK = "mel.window", "mel.filterbank"
"""Of the front-end, among the tensors."""


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """What config.json holds."""
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


def read_described(folder: Path) -> Checkpoint:
    """The checkpoint without tensors. Raises BadCheckpoint where the folder is broken."""
    told = read_json(folder / CONFIG)
    if told.get("format") != FORMAT or told.get("version") != VERSION:
        found = f"format {told.get('format')!r}, version {told.get('version')!r}"
        raise BadCheckpoint(f"{folder.name} has {found}; this Conure reads {FORMAT!r}, version {VERSION}")
    config = cast("NetworkConfig", _build(NetworkConfig, told.get("network"), "network"))
    name, languages = told.get("name", ""), told.get("languages", [])
    if not isinstance(name, str) or not isinstance(languages, list):
        raise BadCheckpoint(f"{CONFIG} has a name or languages of another kind")
    return Checkpoint(
        config=config,
        tensors={},
        tokenizer=read_tokenizer(*_tokenizer_file(folder, told.get("tokenizer")), config.vocabulary),
        languages=tuple(map(str, languages)),
        name=name,
        source=os.fspath(folder),
    )


def _tokenizer_file(folder: Path, name: Any) -> tuple[str, bytes]:
    if not isinstance(name, str) or Path(name).name != name:
        raise BadCheckpoint(f"{CONFIG} names a tokenizer outside the folder: {name!r}")
    return name, read_bounded(folder / name)


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
