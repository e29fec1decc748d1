"""Checkpoints that NeMo wrote and the numbers it got from them; `tools/parity` made both."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from conure.audio.features import LogMel
from conure.models.checkpoint import Checkpoint
from conure.models.loading import build_network, read_checkpoint
from conure.models.network import Network

FOLDER = Path(__file__).parents[1] / "data" / "parity"
ALL = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.reference.safetensors"))
FAMILIES = [name for name in ALL if not name.startswith("hf_")]
"""Written by NeMo."""
CONVERTED = [name for name in ALL if name.startswith("hf_")]
"""The same weights written by transformers."""
RELATIVE = 5e-6
"""Largest accepted difference in the encoder's output, relative to its norm."""


@dataclass(frozen=True)
class Reference:
    name: str
    checkpoint: Checkpoint
    network: Network
    front: LogMel
    tensors: dict[str, Tensor]
    told: dict[str, Any]

    @property
    def mel(self) -> tuple[Tensor, Tensor]:
        """NeMo's features of the recordings: [3, T, F] and lengths [3]."""
        source = self.told.get("source")
        return mels((reference(source) if source else self).told["mel"])

    def rows(self, name: str, counts: str) -> list[list[Any]]:
        """A padded matrix as ragged lists."""
        lengths = self.tensors[counts].tolist()
        return [row[:count].tolist() for row, count in zip(self.tensors[name], lengths, strict=True)]


@functools.cache
def reference(name: str) -> Reference:
    checkpoint = read_checkpoint(FOLDER / (name if name in CONVERTED else f"{name}.nemo"))
    network, front = build_network(checkpoint)
    tensors = load_file(FOLDER / f"{name}.reference.safetensors")
    told = json.loads((FOLDER / f"{name}.reference.json").read_text())
    return Reference(name, checkpoint, network, front, tensors, told)


@functools.cache
def recordings() -> tuple[Tensor, Tensor]:
    """Three clips of real speech of different lengths: samples [3, N], lengths [3]."""
    stored = load_file(FOLDER / "audio.safetensors")
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
