"""A folder with a small live model of random weights, which an engine opens as it opens any other."""

from __future__ import annotations

from pathlib import Path

from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.network import Network
from conure.text.tokenizer import LabelTokenizer

__all__ = ["save_live_model"]

LABELS = [f"▁{letter}" for letter in "abcdefghij"] + list("klmnopqrst")


def save_live_model(net: Network, folder: Path) -> Path:
    tensors = dict(net.state_dict())
    conure_file.save(Checkpoint(net.config, tensors, LabelTokenizer(LABELS), name=folder.name), folder)
    return folder
