"""A model's name becomes a runner that is ready: which device, which runner, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from conure.engine.converted import Precision, converted_folder
from conure.engine.onnx_runner import OnnxRunner
from conure.engine.plan import Plan
from conure.engine.runner import Runner, RunnerName
from conure.engine.stream_runner import StreamRunner, TorchStreamRunner
from conure.engine.torch_runner import TorchRunner
from conure.errors import BadOption
from conure.models.checkpoint import Checkpoint
from conure.models.hub import Progress
from conure.models.loading import build_network, find_checkpoint
from conure.settings import RunnerChoice, load_settings

__all__ = ["Opened", "choose_device", "choose_runner", "open_model", "open_runner"]

log = logging.getLogger(__name__)

SMALL_BYTES = 200_000_000
"""Checkpoints below this gain less by quantising than it costs."""


def open_runner(
    model: str | Path,
    *,
    device: str = "auto",
    runner: RunnerChoice = "auto",
    cache: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Runner, Checkpoint]:
    """A runner and what is left of its checkpoint: at least shape, heads and tokenizer.

    A model that was converted before is not read again. Raises UnknownModel, ModelNotFound, BadCheckpoint,
    BadOption, or ModelError where the converted model cannot be written.
    """
    place = choose_device(device, runner)
    if threads and place.type == "cpu":
        torch.set_num_threads(threads)
    found = find_checkpoint(model, progress=progress)
    name, reason = choose_runner(runner, place, found.bytes)
    log.info("%s runs on %s, %s: %s", model, name, place, reason)
    if name == "torch":
        checkpoint = found.load()
        return TorchRunner(*build_network(checkpoint), place), checkpoint
    precision: Precision = "int8" if name == "onnx-int8" else "fp32"
    folder = converted_folder(found.path, precision, cache or load_settings().cache, found.load)
    opened = OnnxRunner(folder, threads)
    return opened, found.label(opened.checkpoint)


@dataclass(frozen=True)
class Opened:
    """A model that is ready; the two runners share its weights."""

    checkpoint: Checkpoint
    device: torch.device
    clips: Runner | None = None
    streams: StreamRunner | None = None

    @property
    def description(self) -> str:
        runner = self.clips or self.streams
        return runner.description if runner else ""


def open_model(model: str | Path, plan: Plan, *, live: bool, clips: bool) -> Opened:
    """The same for an engine, which may want a model for streams, too."""
    place = choose_device(plan.device, plan.runner)
    if not live:
        runner, checkpoint = open_runner(
            model, device=plan.device, runner=plan.runner, cache=plan.cache, threads=plan.threads
        )
        return Opened(checkpoint, place, clips=runner)
    checkpoint = find_checkpoint(model).load()
    if not checkpoint.config.encoder.cache_aware:
        raise BadOption(f"{model} cannot follow live audio", "take a model that `conure models` lists as live")
    network, front = build_network(checkpoint)
    whole = TorchRunner(network, front, place) if clips else None
    return Opened(checkpoint, place, whole, TorchStreamRunner(network, front, place))


def choose_device(asked: str, runner: RunnerChoice = "auto") -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises BadOption where it is not there or the runner cannot use it."""
    if asked == "auto":
        cuda = torch.cuda.is_available() and not runner.startswith("onnx")
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise BadOption(f"no such device: {asked!r}", "it must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and runner.startswith("onnx"):
        raise BadOption(f"{runner} runs on the CPU, not on {asked}", "leave the runner out, or take --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadOption(f"this machine has no {asked!r}", "run `conure doctor` to see what torch finds")
    return device


def choose_runner(asked: RunnerChoice, device: torch.device, size: int) -> tuple[RunnerName, str]:
    """The runner for a checkpoint of so many bytes, and the reason for it."""
    if asked != "auto":
        return asked, "asked for"
    if device.type == "cuda":
        return "torch", "a GPU"
    if size < SMALL_BYTES:
        return "torch", f"{size / 1e6:.0f} MB of weights are fast as they are"
    return "onnx-int8", "the fastest on a CPU"
