"""Whether the device gives what the CPU gives: before anything is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.edits import edits
from bench.gpu.heard import Heard, hear
from bench.gpu.streams import live_runner, were_recorded
from bench.gpu.told import Told
from conure.engine.backends.cuda.graph_capture import GraphCapturer, no_capture
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.lanes.clips import transcribe_clips
from conure.fused.available import has_fused_kernels, without_kernels
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.config import LEAD_FRAMES, STEP_FRAMES
from conure.models.loader import build_network
from conure.models.static_encoder import StaticEncoder

__all__ = ["encoders", "in_float32", "words"]

CPU = torch.device("cpu")
FORMS: tuple[tuple[str, torch.dtype, GraphCapturer | None], ...] = (
    ("float32, as it is", torch.float32, no_capture),
    ("float32, recorded", torch.float32, None),
    ("bfloat16, as it is", torch.bfloat16, no_capture),
    ("bfloat16, recorded", torch.bfloat16, None),
)


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Products of float32 are not made of less, which runners ask for, for the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.inference_mode()
def encoders(checkpoint: Checkpoint, device: torch.device) -> Told:
    """Relative distances of the streaming step from the modules in float32 on the CPU, over chunks of some rows."""
    told = Told("The streaming step, against float32 on the CPU", ("form", "relative distance"))
    told.note("Triton kernels run." if has_fused_kernels(device) else "Triton kernels do not run here.")
    generator = torch.Generator().manual_seed(0)
    mels = [torch.randn(3, 2 * STEP_FRAMES, 128, generator=generator) for _ in range(40)]
    with in_float32(), without_kernels():
        plain = StaticEncoder(live_runner(checkpoint, CPU, no_capture).encoder.encoder, 70)
        expected = _run(plain, mels, CPU, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        # Kernels take long to compile for float32, which nobody runs them in.
        for kernels in (False, True) if has_fused_kernels(device) and dtype == torch.bfloat16 else (False,):
            name = f"{str(dtype).removeprefix('torch.')}, {'kernels' if kernels else 'torch'}"
            with told.failures(name), contextlib.nullcontext() if kernels else without_kernels():
                runner = live_runner(checkpoint, device, no_capture, dtype)
                got = _run(runner.encoder, mels, device, dtype)
                told.row(name, f"{float((got - expected).norm() / expected.norm()):.1e}")
    return told


def _run(encoder: StaticEncoder, mels: list[torch.Tensor], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    state = encoder.allocate(4)
    slots, frames = torch.tensor([2, 0, 1], device=device), torch.full((3,), 2 * STEP_FRAMES, device=device)
    told = []
    for index, mel in enumerate(mels):
        age = torch.full((3,), 2 * index, device=device)
        encoded, _ = encoder.step(mel.to(device, dtype), frames, slots, age, state)
        told.append(encoded.float().cpu())
    return torch.cat(told, 1)[:, LEAD_FRAMES // STEP_FRAMES :]


def words(device: torch.device) -> Told:
    """Tokens of the embedded models, of real speech: of clips, and of streams in turns of 160 ms."""
    columns = ("of", "form", "tokens", "edits", "of probabilities of speech, at most")
    told = Told("Tokens of the embedded models, against float32 on the CPU", columns)
    with told.failures("clips"):
        _clips(told, _embedded("tiny"), device)
    with told.failures("streams"):
        _streams(told, _embedded("tiny-live"), device)
    return told


def _embedded(name: str) -> Checkpoint:
    return conure_file.read(Path(str(resources.files("conure"))) / "data" / name)


def _clips(told: Told, checkpoint: Checkpoint, device: torch.device) -> None:
    clips = [speech(11.0), speech(4.0)] if device.type == "cuda" else [speech(3.0)]
    with in_float32():
        expected = _tokens(TorchClipRunner(*build_network(checkpoint), CPU), clips)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        own = without_kernels() if dtype == torch.float32 else contextlib.nullcontext()
        with told.failures(f"clips in {name}"), own:
            got = _tokens(TorchClipRunner(*build_network(checkpoint), device, dtype, folded=True), clips)
            told.row("clips", name, f"{sum(map(len, expected))}", f"{edits(got, expected)}", "")


def _tokens(runner: TorchClipRunner, clips: list[np.ndarray]) -> list[list[int]]:
    return [[token.id for token in row] for row in transcribe_clips(runner, clips)]


def _streams(told: Told, checkpoint: Checkpoint, device: torch.device) -> None:
    voice, heard = speech(22.0), (11 if device.type == "cuda" else 2) * 16_000
    clips = np.stack([voice[at : at + heard] for at in (0, 16_000, 40_000)])
    with in_float32(), without_kernels():
        expected = hear(live_runner(checkpoint, CPU, no_capture, torch.float32), clips, 2)
    found: dict[str, Heard] = {}
    for name, dtype, recorder in FORMS:
        with told.failures(f"streams in {name}"):
            runner = live_runner(checkpoint, device, recorder, dtype)
            found[name] = hear(runner, clips, 2)
            were_recorded(runner, told)
            told.row("streams", name, *_apart(found[name], expected))
    if len(found) == len(FORMS):
        one, other = found["bfloat16, recorded"], found["bfloat16, as it is"]
        told.row("streams", "recorded, against as it is", *_apart(one, other))


def _apart(found: Heard, expected: Heard) -> tuple[str, str, str]:
    """How many tokens there should be, how many edits there are, and the largest difference of probabilities."""
    count = sum(map(len, expected.tokens))
    speech_apart = max(np.abs(mine - other).max() for mine, other in zip(found.speech, expected.speech, strict=True))
    return f"{count}", f"{edits(found.tokens, expected.tokens)}", f"{speech_apart:.1e}"
