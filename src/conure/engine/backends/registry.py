"""Opens a model by name: selects the device and the runner, converts the checkpoint if necessary, and logs the reason.

torch is imported only if it runs or converts the model, or if a GPU is requested or a GPU driver is installed.
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
from conure.engine.convert.converted_folder import Precision, ensure_converted, read_converted
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

UNIFIED_STYLE = "chunked_limited_with_rc"
SMALL_MODEL_BYTES = 200_000_000
"""Below this size int8 costs more accuracy than it gains speed, and a second thread gains almost nothing."""


@dataclass(frozen=True)
class OpenedModel:
    """A loaded model and its runners, which share the weights."""

    checkpoint: Checkpoint
    device: Device
    clip_runner: ClipRunner | None = None
    stream_runner: StreamRunner[Any] | None = None
    """For cache-aware networks."""
    cuda_model: CudaStreamModel | None = None
    """For cache-aware networks on a GPU."""
    window_runner: WindowRunner | None = None
    """For unified networks, whose streams are encoded in windows with right context."""

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
    """Opens a runner for clips; also returns the checkpoint, without tensors if it was converted.

    An existing conversion is reused. Raises UnknownModel, ModelNotFound, BadCheckpoint, BadOption, or ModelError if the
    converted model cannot be written.
    """
    plan = Plan(device=device, runner=runner, cache_folder=cache, threads=threads)
    opened = open_model(model, plan, live=False, clips=True, progress=progress)
    assert opened.clip_runner is not None
    return opened.clip_runner, opened.checkpoint


def open_model(
    model: str | Path, plan: Plan, *, live: bool, clips: bool, progress: Progress | None = None
) -> OpenedModel:
    """Opens the runners of a model for streams (`live`), for clips, or for both. Raises like `open_clip_runner`."""
    device = choose_device(plan.device, plan.runner)
    found = find_checkpoint(model, progress=progress)
    name, reason = choose_runner(plan.runner, device, found.bytes)
    log.info("%s runs on %s, %s: %s", model, name, device, reason)
    if name == "torch":
        from conure.engine.backends.torch_eager.open import open_torch  # noqa: PLC0415

        return open_torch(found.load(), device, plan.threads, live=live, clips=clips)
    precision: Precision = "int8" if name == "onnx-int8" else "fp32"
    folder = ensure_converted(found.path, precision, plan.cache_folder or default_cache_folder(), found.load)
    threads = plan.threads or (1 if found.bytes < SMALL_MODEL_BYTES else None)
    return _open_converted(folder, found, device, threads, live=live, clips=clips)


def default_cache_folder() -> Path:
    from conure.settings import load_settings  # noqa: PLC0415  only needed without settings

    return load_settings().cache


def _open_converted(
    folder: Path, found: CheckpointPath, device: Device, threads: int | None, *, live: bool, clips: bool
) -> OpenedModel:
    if live and read_converted(folder).checkpoint.config.encoder.is_cache_aware:
        streams = CpuStreamRunner(folder, threads)
        whole = CpuClipRunner(folder, threads) if clips else None
        return OpenedModel(found.with_catalog_info(streams.checkpoint), device, whole, streams)
    runner = CpuClipRunner(folder, threads)
    windows = CpuWindowRunner(runner) if live and runner.config.encoder.style == UNIFIED_STYLE else None
    return OpenedModel(found.with_catalog_info(runner.checkpoint), device, runner, window_runner=windows)


def choose_device(requested: str, runner: RunnerChoice = "auto") -> Device:
    """Resolves auto, cpu, cuda or cuda:N. Raises BadOption if the device is missing or the runner cannot use it."""
    if requested == "cpu" or (requested == "auto" and (runner.startswith("onnx") or not has_gpu_driver())):
        return CPU
    import torch  # noqa: PLC0415

    if requested == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else CPU
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise BadOption(f"unknown device: {requested!r}", "use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and runner.startswith("onnx"):
        raise BadOption(f"runner {runner} needs the CPU, not {requested}", "omit the runner, or use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadOption(f"device {requested!r} not found", "run `conure doctor` to list the devices that torch finds")
    return device


def choose_runner(requested: RunnerChoice, device: Device, size: int) -> tuple[RunnerName, str]:
    """The runner for a checkpoint of `size` bytes, and the reason for the choice."""
    if requested != "auto":
        return requested, "requested"
    if device.type == "cuda":
        return "torch", "a GPU is available"
    if size < SMALL_MODEL_BYTES:
        return "onnx-fp32", f"{size / 1e6:.0f} MB of weights are fast in fp32"
    if adds_in_16_bits():
        return "onnx-fp32", "int8 is not accurate enough on a processor without VNNI"
    return "onnx-int8", "fastest on a CPU"
