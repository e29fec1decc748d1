"""A folder with a small live model of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext
from conure.models.network import Network
from conure.text.tokenizer import LabelTokenizer
from tests.models.networks import STREAMING, network

__all__ = ["CONTEXTS", "LEFT", "save_live_model", "talking_network"]

LEFT = 56
CONTEXTS = tuple(AttentionContext(LEFT, right) for right in (1, 0, 3, 6, 13))

LABELS = [f"▁{letter}" for letter in "abcdefghij"] + list("klmnopqrst")


def talking_network() -> Network:
    """A network that emits a token about every second frame."""
    net = network(
        replace(STREAMING, contexts=CONTEXTS), predictor_width=16, predictor_layers=2, joint_width=16, max_symbols=3
    )
    with torch.no_grad():
        net.joint.enc.weight.mul_(4)
        net.joint.head.weight.mul_(6)
        net.joint.head.bias[net.config.blank] += 3.0
    return net


def save_live_model(net: Network, folder: Path) -> Path:
    tensors = dict(net.state_dict())
    conure_file.save(Checkpoint(net.config, tensors, LabelTokenizer(LABELS), name=folder.name), folder)
    return folder
