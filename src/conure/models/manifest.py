"""Checkpoint folders in Conure's format without their tensors: config.json with the network's config, the tokenizer."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any, cast

from conure.errors import BadCheckpoint
from conure.models import config_values as checked
from conure.models.checkpoint import Checkpoint
from conure.models.config import NetworkConfig
from conure.models.config_values import first_few, short_repr
from conure.models.json_file import read_bounded, read_json
from conure.text.tokenizer import read_tokenizer

__all__ = ["CONFIG", "FILTERBANK", "WINDOW", "describe_checkpoint", "is_conure_folder", "read_manifest"]

FORMAT = "conure"
VERSION = 1
CONFIG = "config.json"
WINDOW, FILTERBANK = "mel.window", "mel.filterbank"
"""Names of the feature extractor's tensors."""


MAX_TEXT_LENGTH = 1_000
MAX_NUMBER = 2**20
"""Limit of numbers without an entry in LIMITS."""
LIMITS = {
    "network.encoder.features": (1, 2**10),
    "network.encoder.layers": (1, 500),
    "network.encoder.width": (1, 2**14),
    "network.encoder.heads": (1, 2**10),
    "network.encoder.expansion": (1, 2**6),
    "network.encoder.kernel": (1, 2**10),
    "network.encoder.channels": (1, 2**12),
    "network.encoder.contexts.left": (-1, checked.MAX_CONTEXT),
    "network.encoder.contexts.right": (-1, checked.MAX_CONTEXT),
    "network.encoder.contexts.chunk": (1, checked.MAX_CONTEXT),
    "network.encoder.global_tokens": (0, checked.MAX_GLOBAL_STEPS),
    "network.encoder.global_spacing": (1, checked.MAX_CONTEXT),
    "network.encoder.speaker_layers": (0, 500),
    "network.mel.features": (1, 2**10),
    "network.mel.sample_rate": (16_000, 16_000),
    "network.mel.window": (1, checked.MAX_FFT),
    "network.mel.hop": (160, 160),
    "network.mel.fft": (1, checked.MAX_FFT),
    "network.vocabulary": (1, 2**20),
    "network.predictor_width": (0, 2**14),
    "network.predictor_layers": (0, 2**6),
    "network.joint_width": (0, 2**14),
    "network.durations": (0, checked.MAX_DURATION),
    "network.prompts": (0, checked.MAX_PROMPTS),
    "network.max_symbols": (1, checked.MAX_SYMBOLS),
}
"""Bounds of whole numbers; larger ones would be a mistake or an attempt to exhaust the memory."""


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of config.json."""
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
    """Whether a folder has this format; it may still be incomplete or inconsistent."""
    return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("format") == FORMAT


def read_manifest(folder: Path) -> Checkpoint:
    """The checkpoint without tensors. Raises BadCheckpoint if the folder is broken."""
    manifest = read_json(folder / CONFIG)
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        found = f"format {short_repr(manifest.get('format'))}, version {short_repr(manifest.get('version'))}"
        raise BadCheckpoint(f"{folder.name} has {found}; this Conure reads {FORMAT!r}, version {VERSION}")
    config = cast("NetworkConfig", _build(NetworkConfig, manifest.get("network"), "network"))
    _check(config)
    name, languages = manifest.get("name", ""), manifest.get("languages", [])
    name = _build(str, name, "name")
    languages = _build(tuple[str, ...], languages, "languages")
    return Checkpoint(
        config=config,
        tensors={},
        tokenizer=read_tokenizer(*_tokenizer_file(folder, manifest.get("tokenizer")), config.vocabulary),
        languages=languages,
        name=name,
        source=os.fspath(folder),
    )


def _check(config: NetworkConfig) -> None:
    """Raises BadCheckpoint if values contradict one another."""
    encoder, mel = config.encoder, config.mel
    if not encoder.contexts:
        raise BadCheckpoint(f"network.encoder.contexts in {CONFIG} is empty")
    for context in encoder.contexts:
        if encoder.local and not 0 < context.left <= checked.MAX_WINDOW:
            raise BadCheckpoint(f"network.encoder.contexts in {CONFIG} has {context.left} steps of local attention")
    if encoder.width % encoder.heads or encoder.width % 2:
        raise BadCheckpoint(f"network.encoder in {CONFIG}: {encoder.heads} heads do not fit a width of {encoder.width}")
    if not mel.hop <= mel.window <= mel.fft:
        raise BadCheckpoint(f"network.mel in {CONFIG}: hop, window and FFT do not fit one another")
    slots = [slot for _, slot in config.prompt_ids if slot >= config.prompts]
    if slots:
        raise BadCheckpoint(f"network.prompt_ids in {CONFIG} has slot {slots[0]}; there are {config.prompts}")


def _tokenizer_file(folder: Path, name: Any) -> tuple[str, bytes]:
    if not _is_text(name) or Path(name).name != name:
        raise BadCheckpoint(f"{CONFIG} names a tokenizer outside the folder: {short_repr(name)}")
    return name, read_bounded(folder / name)


def _build(kind: Any, value: Any, path: str) -> Any:
    """A JSON value converted to the annotated type of a config's dataclass, checked recursively."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path)
    if origin is tuple and isinstance(value, list) and len(value) <= checked.MAX_PROMPTS:
        inner = [parts[0]] * len(value) if parts[-1] is ... else list(parts)
        if len(inner) == len(value):
            return tuple(_build(item_kind, item, path) for item_kind, item in zip(inner, value, strict=True))
    elif origin is typing.Literal and value in parts:
        return value
    elif origin is types.UnionType and value is None and types.NoneType in parts:
        return None
    elif origin is types.UnionType:
        return _build(parts[0], value, path)
    elif kind is float:
        return checked.number(value, f"{path} in {CONFIG}", 0, MAX_NUMBER)
    elif kind is int:
        return checked.integer(value, f"{path} in {CONFIG}", *LIMITS.get(path, (0, MAX_NUMBER)))
    elif (kind is str and _is_text(value)) or (kind is bool and type(value) is bool):
        return value
    raise BadCheckpoint(f"{path} in {CONFIG} is {short_repr(value)}, which is invalid")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT_LENGTH


def _build_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} in {CONFIG} is {short_repr(value)} and should be an object")
    hints = typing.get_type_hints(kind)
    if unknown := value.keys() - hints.keys():
        raise BadCheckpoint(f"{path} in {CONFIG} has settings of a newer Conure: {first_few(sorted(unknown))}")
    return kind(**{name: _build(hints[name], inner, f"{path}.{name}") for name, inner in value.items()})
