"""How references are stored: plain tensors, ragged lists as padded tensors with counts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def padded(rows: list[list], dtype: torch.dtype) -> torch.Tensor:
    """Stack ragged rows, -1 behind the end of each."""
    width = max((len(row) for row in rows), default=0)
    table = torch.full((len(rows), width), -1, dtype=dtype)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor(row, dtype=dtype)
    return table


def counts(rows: list[list]) -> torch.Tensor:
    """The length of each ragged row."""
    return torch.tensor([len(row) for row in rows])


def save_reference(folder: Path, name: str, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Write NAME.safetensors and NAME.json."""
    plain = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    write_tensors(folder / f"{name}.safetensors", plain)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file that others may read too."""
    save_file(tensors, path)
    path.chmod(0o644)
