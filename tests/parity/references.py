"""Checkpoints that NeMo wrote and the numbers it got from them; `tools/parity` made both."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from conure.audio.features import LogMel
from conure.models.checkpoint import Checkpoint
from conure.models.loader import build_network, read_checkpoint
from conure.models.network import Network

DATA = Path(__file__).parents[1] / "data" / "parity"
FOLDER = Path(os.environ.get("CONURE_PARITY", DATA))
"""`make parity` points at references it has just made."""
FAMILIES = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.reference.safetensors"))
"""Written by NeMo."""
CONVERTED = sorted(path.name.split(".")[0] for path in FOLDER.glob("hf_*.expected.safetensors"))
"""The same weights written by transformers."""
RELATIVE = 5e-6
"""Largest accepted difference in the encoder's output, relative to its norm."""


def having(tensor: str) -> list[str]:
    """The families whose reference holds a tensor of that name, or one that begins with it."""
    return [name for name in FAMILIES if _holds(FOLDER / f"{name}.reference.safetensors", tensor)]


def _holds(path: Path, tensor: str) -> bool:
    with safe_open(path, "pt") as file:
        return any(name.startswith(tensor) for name in file.keys())  # noqa: SIM118  it is no mapping


@dataclass(frozen=True)
class Reference:
    name: str
    checkpoint: Checkpoint
    network: Network
    front: LogMel
    tensors: dict[str, Tensor]
    told: dict[str, Any]

    @property
    def source(self) -> Reference:
        """Where features and prompts are told: NeMo's reference of the same weights."""
        return reference(self.told["source"]) if "source" in self.told else self

    @property
    def mel(self) -> tuple[Tensor, Tensor]:
        """NeMo's features of the recordings: [3, T, F] and lengths [3]."""
        return mels(self.source.told["mel"])

    @property
    def prompts(self) -> Tensor | None:
        """Language slots of the rows, [3], for models that take a prompt."""
        return self.source.tensors.get("prompts")

    def rows(self, name: str, counts: str) -> list[list[Any]]:
        """A padded matrix as ragged lists."""
        lengths = self.tensors[counts].tolist()
        return [row[:count].tolist() for row, count in zip(self.tensors[name], lengths, strict=True)]


@functools.lru_cache(maxsize=2)
@torch.inference_mode(False)  # some tests ask within it, others use the same weights without
def reference(name: str) -> Reference:
    converted = name in CONVERTED
    checkpoint = read_checkpoint(FOLDER / (name if converted else f"{name}.nemo"))
    network, front = build_network(checkpoint)
    numbers = FOLDER / f"{name}.{'expected' if converted else 'reference'}"
    tensors = load_file(numbers.with_suffix(numbers.suffix + ".safetensors"))
    told = json.loads(numbers.with_suffix(numbers.suffix + ".json").read_text())
    return Reference(name, checkpoint, network, front, tensors, told)


@functools.cache
def recordings() -> tuple[Tensor, Tensor]:
    """Three clips of real speech of different lengths: samples [3, N], lengths [3]."""
    stored = load_file(DATA / "audio.safetensors")
    lengths = stored["lengths"]
    samples = torch.zeros(len(lengths), int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        samples[row, :length] = stored[f"clip_{row}"].float() / 32768
    return samples, lengths


@functools.cache
def mels(kind: str) -> tuple[Tensor, Tensor]:
    stored = load_file(FOLDER / "mel.safetensors")
    return stored[kind].transpose(1, 2), stored[f"{kind}_lengths"]


def relative_error(got: Tensor, expected: Tensor, counts: Tensor) -> float:
    """Of the valid steps of all rows."""
    pairs = [(a[:n], b[:n]) for a, b, n in zip(got, expected, counts.tolist(), strict=True)]
    got, expected = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return float((got - expected).norm() / expected.norm())
