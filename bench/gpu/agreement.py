"""Compares results of the device with those of the CPU in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.edit_distance import edit_distance
from bench.gpu.result_table import ResultTable
from bench.gpu.stream_output import StreamOutput, decode_streams
from bench.gpu.streams import live_runner, note_capture_failure
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
    ("float32, eager", torch.float32, no_capture),
    ("float32, captured", torch.float32, None),
    ("bfloat16, eager", torch.bfloat16, no_capture),
    ("bfloat16, captured", torch.bfloat16, None),
)


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Full float32 products; runners enable TF32 for the whole process."""
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


@torch.inference_mode()
def encoders(checkpoint: Checkpoint, device: torch.device) -> ResultTable:
    """Relative distances of the streaming step from the reference implementation in float32 on the CPU."""
    table = ResultTable("The streaming step, against float32 on the CPU", ("form", "relative distance"))
    table.add_note("Triton kernels run." if has_fused_kernels(device) else "Triton kernels do not run here.")
    generator = torch.Generator().manual_seed(0)
    mels = [torch.randn(3, 2 * STEP_FRAMES, 128, generator=generator) for _ in range(40)]
    with in_float32(), without_kernels():
        plain = StaticEncoder(live_runner(checkpoint, CPU, no_capture).encoder.encoder, 70)
        expected = _run(plain, mels, CPU, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        # Kernels take long to compile for float32, and are used with bfloat16 only.
        for kernels in (False, True) if has_fused_kernels(device) and dtype == torch.bfloat16 else (False,):
            name = f"{str(dtype).removeprefix('torch.')}, {'kernels' if kernels else 'torch'}"
            with table.record_failures(name), contextlib.nullcontext() if kernels else without_kernels():
                runner = live_runner(checkpoint, device, no_capture, dtype)
                got = _run(runner.encoder, mels, device, dtype)
                table.add_row(name, f"{float((got - expected).norm() / expected.norm()):.1e}")
    return table


def _run(encoder: StaticEncoder, mels: list[torch.Tensor], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    state = encoder.allocate(4)
    slots, frames = torch.tensor([2, 0, 1], device=device), torch.full((3,), 2 * STEP_FRAMES, device=device)
    outputs = []
    for index, mel in enumerate(mels):
        age = torch.full((3,), 2 * index, device=device)
        encoded, _ = encoder.step(mel.to(device, dtype), frames, slots, age, state)
        outputs.append(encoded.float().cpu())
    return torch.cat(outputs, 1)[:, LEAD_FRAMES // STEP_FRAMES :]


def words(device: torch.device) -> ResultTable:
    """Tokens of the shipped models for real speech: clips, and streams in steps of 160 ms."""
    columns = ("of", "form", "tokens", "edits", "largest difference of speech probabilities")
    table = ResultTable("Tokens of the shipped models, against float32 on the CPU", columns)
    with table.record_failures("clips"):
        _clips(table, _embedded("tiny"), device)
    with table.record_failures("streams"):
        _streams(table, _embedded("tiny-live"), device)
    return table


def _embedded(name: str) -> Checkpoint:
    return conure_file.read(Path(str(resources.files("conure"))) / "data" / name)


def _clips(table: ResultTable, checkpoint: Checkpoint, device: torch.device) -> None:
    clips = [speech(11.0), speech(4.0)] if device.type == "cuda" else [speech(3.0)]
    with in_float32():
        expected = _tokens(TorchClipRunner(*build_network(checkpoint), CPU), clips)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        context = without_kernels() if dtype == torch.float32 else contextlib.nullcontext()
        with table.record_failures(f"clips in {name}"), context:
            got = _tokens(TorchClipRunner(*build_network(checkpoint), device, dtype, folded=True), clips)
            table.add_row("clips", name, f"{sum(map(len, expected))}", f"{edit_distance(got, expected)}", "")


def _tokens(runner: TorchClipRunner, clips: list[np.ndarray]) -> list[list[int]]:
    return [[token.id for token in row] for row in transcribe_clips(runner, clips)]


def _streams(table: ResultTable, checkpoint: Checkpoint, device: torch.device) -> None:
    voice, length = speech(22.0), (11 if device.type == "cuda" else 2) * 16_000
    clips = np.stack([voice[start : start + length] for start in (0, 16_000, 40_000)])
    with in_float32(), without_kernels():
        expected = decode_streams(live_runner(checkpoint, CPU, no_capture, torch.float32), clips, 2)
    found: dict[str, StreamOutput] = {}
    for name, dtype, capturer in FORMS:
        with table.record_failures(f"streams in {name}"):
            runner = live_runner(checkpoint, device, capturer, dtype)
            found[name] = decode_streams(runner, clips, 2)
            note_capture_failure(runner, table)
            table.add_row("streams", name, *_differences(found[name], expected))
    if len(found) == len(FORMS):
        captured, eager = found["bfloat16, captured"], found["bfloat16, eager"]
        table.add_row("streams", "captured, against eager", *_differences(captured, eager))


def _differences(found: StreamOutput, expected: StreamOutput) -> tuple[str, str, str]:
    """Number of expected tokens, edits, and the largest difference of speech probabilities."""
    count = sum(map(len, expected.tokens))
    speech_difference = max(
        np.abs(mine - other).max() for mine, other in zip(found.speech, expected.speech, strict=True)
    )
    return f"{count}", f"{edit_distance(found.tokens, expected.tokens)}", f"{speech_difference:.1e}"
