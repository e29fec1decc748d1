"""A model's name becomes a runner that is ready: which device, which runner, and why."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from conure.engine.runner import Runner, RunnerName
from conure.engine.torch_runner import TorchRunner
from conure.errors import BadOption
from conure.models.checkpoint import Checkpoint
from conure.models.hub import Progress
from conure.models.loading import build_network, load_checkpoint
from conure.settings import RunnerChoice

__all__ = ["choose_device", "choose_runner", "open_runner"]

log = logging.getLogger(__name__)

SMALL = 50_000_000
"""Parameters below which quantising gains less than it costs."""


def open_runner(
    model: str | Path,
    *,
    device: str = "auto",
    runner: RunnerChoice = "auto",
    cache: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Runner, Checkpoint]:
    """Raises UnknownModel, ModelNotFound, BadCheckpoint, MissingBackend or BadOption."""
    place = choose_device(device)
    if threads and place.type == "cpu":
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(model, progress=progress)
    name, reason = choose_runner(runner, place, checkpoint)
    log.info("%s runs on %s, %s: %s", checkpoint.name, name, place, reason)
    network, front = build_network(checkpoint)
    return TorchRunner(network, front, place), checkpoint


def choose_device(asked: str) -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises BadOption where it is not there."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise BadOption(f"no such device: {asked!r}", "it must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadOption(f"this machine has no {asked!r}", "run `conure doctor` to see what torch finds")
    return device


def choose_runner(asked: RunnerChoice, device: torch.device, checkpoint: Checkpoint) -> tuple[RunnerName, str]:
    """The runner and the reason for it."""
    if asked != "auto":
        return asked, "asked for"
    if device.type == "cuda":
        return "torch", "a GPU"
    if checkpoint.parameters < SMALL:
        return "torch", f"{checkpoint.parameters / 1e6:.1f} M parameters are fast as they are"
    return "onnx-int8", "the fastest on a CPU"
