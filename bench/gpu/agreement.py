"""Whether the device gives what the CPU gives: before anything is measured."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.streams import live_runner
from bench.gpu.told import Told
from conure.engine.clips import transcribe_clips
from conure.engine.recording import as_it_is
from conure.engine.torch_runner import TorchRunner
from conure.fused.available import available, without_kernels
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.config import STEP_FRAMES
from conure.models.live_encoder import LiveEncoder
from conure.models.loading import build_network
from conure.models.subsampling import LEAD_FRAMES

__all__ = ["encoders", "words"]

CPU = torch.device("cpu")


@torch.inference_mode()
def encoders(checkpoint: Checkpoint, device: torch.device) -> Told:
    """Relative distances of the streaming step from the modules in float32 on the CPU, over chunks of some rows."""
    told = Told("The streaming step, against float32 on the CPU", ("form", "relative distance"))
    told.note("Triton kernels run." if available(device) else "Triton kernels do not run here.")
    plain = LiveEncoder(live_runner(checkpoint, CPU, as_it_is).encoder.encoder, 70)
    generator = torch.Generator().manual_seed(0)
    mels = [torch.randn(3, 2 * STEP_FRAMES, 128, generator=generator) for _ in range(40)]
    with without_kernels():
        expected = _run(plain, mels, CPU, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        for kernels in (False, True) if available(device) else (False,):
            name = f"{str(dtype).removeprefix('torch.')}, {'kernels' if kernels else 'torch'}"
            with told.failures(name):
                runner = live_runner(checkpoint, device, as_it_is)
                runner.network.encoder.to(dtype)
                if kernels:
                    got = _run(runner.encoder, mels, device, dtype)
                else:
                    with without_kernels():
                        got = _run(runner.encoder, mels, device, dtype)
                told.row(name, f"{float((got - expected).norm() / expected.norm()):.1e}")
    return told


def _run(encoder: LiveEncoder, mels: list[torch.Tensor], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    state = encoder.allocate(4)
    slots, frames = torch.tensor([2, 0, 1], device=device), torch.full((3,), 2 * STEP_FRAMES, device=device)
    told = []
    for index, mel in enumerate(mels):
        age = torch.full((3,), 2 * index, device=device)
        encoded, _ = encoder.step(mel.to(device, dtype), frames, slots, age, state)
        told.append(encoded.float().cpu())
    return torch.cat(told, 1)[:, LEAD_FRAMES // STEP_FRAMES :]


def words(device: torch.device) -> Told:
    """Tokens of the embedded model, of real speech."""
    told = Told("Tokens of the embedded model, against float32 on the CPU", ("form", "tokens", "that differ"))
    checkpoint = conure_file.read(Path(str(resources.files("conure"))) / "data" / "tiny")
    clips = [speech(11.0), speech(11.0)[: 4 * 16_000]]
    expected = _tokens(TorchRunner(*build_network(checkpoint), CPU), clips)
    for dtype in (torch.float32, torch.bfloat16):
        with told.failures(str(dtype)):
            got = _tokens(TorchRunner(*build_network(checkpoint), device, dtype, folded=True), clips)
            apart = sum(a != b for one, two in zip(got, expected, strict=True) for a, b in zip(one, two, strict=False))
            apart += sum(abs(len(one) - len(two)) for one, two in zip(got, expected, strict=True))
            told.row(str(dtype).removeprefix("torch."), f"{sum(map(len, expected))}", f"{apart}")
    return told


def _tokens(runner: TorchRunner, clips: list[np.ndarray]) -> list[list[int]]:
    return [[token.id for token in row] for row in transcribe_clips(runner, clips)]
