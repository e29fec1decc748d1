"""A model's name becomes a runner that is ready: which device, which runner, and why.

torch is loaded where it runs the model, where a model must be converted, and where a card is asked for or in sight.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conure.engine.backends.clip_runner import ClipRunner, RunnerName
from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.backends.cpu.window_runner import CpuWindowRunner
from conure.engine.backends.device import CPU, Device, has_gpu_driver
from conure.engine.backends.stream_runner import StreamRunner
from conure.engine.backends.window_runner import WindowRunner
from conure.engine.convert.converted_folder import Precision, converted_folder, read_converted
from conure.engine.convert.saturation import adds_in_16_bits
from conure.engine.plan import Plan
from conure.errors import BadOption
from conure.models.checkpoint import Checkpoint
from conure.models.checkpoint_paths import CheckpointPath, find_checkpoint
from conure.models.hub_repository import Progress
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.engine.backends.cuda.stream_model import CudaStreamModel

__all__ = ["OpenedModel", "choose_device", "choose_runner", "default_cache_folder", "open_model", "open_clip_runner"]

log = logging.getLogger(__name__)

WINDOWED = "chunked_limited_with_rc"
SMALL_BYTES = 200_000_000
"""Checkpoints below this gain less by quantising than it costs in accuracy, and next to nothing by a second thread."""


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready; the two runners share its weights."""

    checkpoint: Checkpoint
    device: Device
    clip_runner: ClipRunner | None = None
    stream_runner: StreamRunner[Any] | None = None
    """For cache-aware networks."""
    cuda_model: CudaStreamModel | None = None
    """For the same on a GPU."""
    window_runner: WindowRunner | None = None
    """For those that hear windows with a future in them."""

    @property
    def description(self) -> str:
        runner = self.stream_runner or self.cuda_model or self.window_runner or self.clip_runner
        return runner.description if runner else ""


def open_clip_runner(
    model: str | Path,
    *,
    device: str = "auto",
    runner: RunnerChoice = "auto",
    cache: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[ClipRunner, Checkpoint]:
    """A runner for clips and its checkpoint, without tensors where it was converted.

    A model that was converted before is not read again. Raises UnknownModel, ModelNotFound, BadCheckpoint,
    BadOption, or ModelError where the converted model cannot be written.
    """
    plan = Plan(device=device, runner=runner, cache=cache, threads=threads)
    opened = open_model(model, plan, live=False, clips=True, progress=progress)
    assert opened.clip_runner is not None
    return opened.clip_runner, opened.checkpoint


def open_model(
    model: str | Path, plan: Plan, *, live: bool, clips: bool, progress: Progress | None = None
) -> OpenedModel:
    """The runners that a model needs for streams, for clips, or for both. Raises what `open_clip_runner` raises."""
    place = choose_device(plan.device, plan.runner)
    found = find_checkpoint(model, progress=progress)
    name, reason = choose_runner(plan.runner, place, found.bytes)
    log.info("%s runs on %s, %s: %s", model, name, place, reason)
    if name == "torch":
        from conure.engine.backends.torch_eager.open import open_torch  # noqa: PLC0415

        return open_torch(found.load(), place, plan.threads, live=live, clips=clips)
    precision: Precision = "int8" if name == "onnx-int8" else "fp32"
    folder = converted_folder(found.path, precision, plan.cache or default_cache_folder(), found.load)
    threads = plan.threads or (1 if found.bytes < SMALL_BYTES else None)
    return _open_onnx(folder, found, place, threads, live=live, clips=clips)


def default_cache_folder() -> Path:
    from conure.settings import load_settings  # noqa: PLC0415  whoever has settings hands the folder over

    return load_settings().cache


def _open_onnx(
    folder: Path, found: CheckpointPath, place: Device, threads: int | None, *, live: bool, clips: bool
) -> OpenedModel:
    if live and read_converted(folder).checkpoint.config.encoder.is_cache_aware:
        streams = CpuStreamRunner(folder, threads)
        whole = CpuClipRunner(folder, threads) if clips else None
        return OpenedModel(found.with_catalog_info(streams.checkpoint), place, whole, streams)
    runner = CpuClipRunner(folder, threads)
    windows = CpuWindowRunner(runner) if live and runner.config.encoder.style == WINDOWED else None
    return OpenedModel(found.with_catalog_info(runner.checkpoint), place, runner, window_runner=windows)


def choose_device(asked: str, runner: RunnerChoice = "auto") -> Device:
    """auto, cpu, cuda or cuda:N. Raises BadOption where it is not there or the runner cannot use it."""
    if asked == "cpu" or (asked == "auto" and (runner.startswith("onnx") or not has_gpu_driver())):
        return CPU
    import torch  # noqa: PLC0415

    if asked == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else CPU
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise BadOption(f"no such device: {asked!r}", "it must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and runner.startswith("onnx"):
        raise BadOption(f"{runner} runs on the CPU, not on {asked}", "leave the runner out, or take --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadOption(f"this machine has no {asked!r}", "run `conure doctor` to see what torch finds")
    return device


def choose_runner(asked: RunnerChoice, device: Device, size: int) -> tuple[RunnerName, str]:
    """The runner for a checkpoint of so many bytes, and the reason for it."""
    if asked != "auto":
        return asked, "asked for"
    if device.type == "cuda":
        return "torch", "a GPU"
    if size < SMALL_BYTES:
        return "onnx-fp32", f"{size / 1e6:.0f} MB of weights are fast as they are"
    if adds_in_16_bits():
        return "onnx-fp32", "int8 is not exact enough on a processor without VNNI"
    return "onnx-int8", "the fastest on a CPU"
