"""The native clip encoder matches the ONNX graph with the same weights, for clips of any length and in any batch."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conure.engine.backends.cpu.clip_runner import MAX_BATCH_STEPS, CpuClipRunner
from conure.engine.backends.cpu.native_clip_encoder import visible_ranges
from conure.engine.backends.cpu.window_runner import CpuWindowRunner
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.engine.convert.convert import convert
from conure.engine.convert.graph_names import REACH
from conure.models import config as shapes
from conure.models.config import STEP_FRAMES, AttentionContext, EncoderConfig
from conure.models.loader import build_network
from conure.models.preemptible import run_to_end
from conure.native.library import has_native_kernels
from tests.models.networks import OFFLINE, STREAMING, checkpoint_of, network
from tests.parity.references import relative_error

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="native kernels need a compiler and a processor with VNNI"
)

BOUND = 0.04
"""Largest accepted error relative to the float32 modules' norm; the same as for the int8 graph."""
STEP = 16_000 * 8 // 100

WIDE = replace(OFFLINE, width=64, channels=16)
SHAPES: dict[str, EncoderConfig] = {
    "offline": WIDE,
    "wider heads": replace(WIDE, width=128, heads=2),
    "batch norm and biases": replace(WIDE, norm="batch_norm", bias=True, scale_input=True),
    "limited": replace(WIDE, contexts=(AttentionContext(5, 3),)),
    "past only": replace(WIDE, contexts=(AttentionContext(-1, 0),)),
    "local": replace(WIDE, local=True, contexts=(AttentionContext(16, 16),)),
    "global step": replace(WIDE, local=True, contexts=(AttentionContext(16, 16),), global_tokens=1),
    "global steps": replace(
        WIDE, local=True, contexts=(AttentionContext(5, 5),), global_tokens=20, global_spacing=3, scale_input=True
    ),
    "streaming": replace(STREAMING, width=64, channels=16),
    "right context": replace(WIDE, style="chunked_limited_with_rc", contexts=(AttentionContext(8, 2, 4),)),
    "single speaker": replace(WIDE, speaker_layers=(0,)),
    "prompted": WIDE,
}


@pytest.fixture(scope="module", autouse=True)
def folders() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        _Cache.folder = Path(folder)
        yield
    runners.cache_clear()


class _Cache:
    folder: Path


@functools.cache
def runners(name: str) -> tuple[CpuClipRunner, CpuClipRunner, TorchClipRunner]:
    """Runners of native kernels, of the graph and of the modules."""
    checkpoint = checkpoint_of(network(SHAPES[name], ctc=True, prompts=5 * (name == "prompted")))
    folder = _Cache.folder / name
    convert(checkpoint, folder, "int8")
    net, log_mel = build_network(checkpoint)
    reference = TorchClipRunner(net, log_mel, torch.device("cpu"))
    return CpuClipRunner(folder, 2), CpuClipRunner(folder, 1, kernels=False), reference


def noise(*steps: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    samples = generator.standard_normal((len(steps), max(steps) * STEP), np.float32) * np.float32(0.1)
    return samples, np.array(steps) * STEP


def error(got: Any, expected: Any, counts: Any) -> float:
    return relative_error(*map(torch.as_tensor, (got, expected, counts)))


def prompts_for(name: str, clips: int) -> np.ndarray | None:
    return np.arange(clips) % 5 if name == "prompted" else None


@pytest.mark.parametrize("name", SHAPES)
def test_kernels_match_the_modules(name: str) -> None:
    """Clips of a tile's rows, around a block of keys, and longer ones."""
    native, graph, reference = runners(name)
    assert native.description == "native int8, 2 threads"
    assert graph.description == "onnx int8, 1 thread"
    clips = noise(1, 5, 6, 7, 63, 64, 65, 130, 150)
    prompts = prompts_for(name, len(clips[1]))
    expected, counts = run_to_end(reference.encode(*clips, prompts))
    errors = []
    for runner in (native, graph):
        got, found = run_to_end(runner.encode(*clips, prompts))
        assert found.tolist() == counts.tolist()
        errors.append(error(got, expected, counts))
    assert errors[0] < BOUND
    assert errors[0] < 1.5 * errors[1], "the kernels' error is larger than the graph's"


@pytest.mark.parametrize("name", SHAPES)
def test_clips_are_independent(name: str) -> None:
    native, _, _ = runners(name)
    samples, lengths = noise(40, 3, 70, 0, 12, 400, 120)
    prompts = prompts_for(name, len(lengths))
    together, counts = run_to_end(native.encode(samples, lengths, prompts))
    assert int(counts.sum()) > MAX_BATCH_STEPS, "the clips must need several batches"
    for row, length in enumerate(lengths.tolist()):
        single = slice(row, row + 1)
        alone, count = run_to_end(
            native.encode(samples[single, :length], lengths[single], None if prompts is None else prompts[single])
        )
        assert np.array_equal(together[row, : int(count[0])], alone[0, : int(count[0])])


@pytest.mark.parametrize("name", ["offline", "wider heads", "past only"])
def test_clips_longer_than_the_tables(name: str) -> None:
    native, _, reference = runners(name)
    clips = noise(REACH + 20, 5)
    got, counts = run_to_end(native.encode(*clips))
    assert error(got, run_to_end(reference.encode(*clips))[0], counts) < BOUND


def test_longer_tables_do_not_change_short_clips() -> None:
    native, _, _ = runners("offline")
    before, _ = run_to_end(native.encode(*noise(40)))
    run_to_end(native.encode(*noise(REACH + 20)))
    assert np.array_equal(before, run_to_end(native.encode(*noise(40)))[0])


def test_very_long_clips_use_local_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    native, _, reference = runners("offline")
    for module in ("conure.engine.backends.cpu.native_clip_encoder", "conure.models.conformer"):
        monkeypatch.setattr(f"{module}.MAX_FULL_ATTENTION_STEPS", 100)
        monkeypatch.setattr(f"{module}.LONG_CONTEXT", AttentionContext(8, 8))
    clips = noise(101)
    got, counts = run_to_end(native.encode(*clips))
    assert error(got, run_to_end(reference.encode(*clips))[0], counts) < BOUND
    assert shapes.MAX_FULL_ATTENTION_STEPS > 10_000


@pytest.mark.parametrize("context", [(8, 2, 4), (6, 1, 1), (0, 0, 3), (-1, -1, 2), (5, 3, None), (-1, -1, None)])
def test_windows_use_the_given_context(context: tuple[int, int, int | None]) -> None:
    native, _, reference = runners("right context")
    windows = (
        CpuWindowRunner(native),
        TorchWindowRunner(reference.network, reference.feature_extractor, torch.device("cpu")),
    )
    frames, left = np.array([19 * STEP_FRAMES, 0, 7 * STEP_FRAMES - 3]), np.array([6, 0, 0])
    shape = 3, int(frames.max()), reference.network.config.mel.features
    mel, attention_context = np.random.default_rng(5).standard_normal(shape, np.float32), AttentionContext(*context)
    (got, counts), (expected, _) = (runner.encode(mel, frames, left, attention_context) for runner in windows)
    assert error(got, expected, counts) < BOUND


def test_a_slice_is_a_layer() -> None:
    native, _, _ = runners("offline")
    slices = native.encode(*noise(10))
    assert sum(1 for _ in slices) == 1 + WIDE.layers


@given(
    steps=st.integers(1, 40),
    style=st.sampled_from(["regular", "chunked_limited", "chunked_limited_with_rc"]),
    left=st.integers(-1, 12),
    right=st.integers(-1, 12),
    chunk=st.integers(1, 5),
)
def test_visible_ranges_match_the_modules(steps: int, style: str, left: int, right: int, chunk: int) -> None:
    config = replace(OFFLINE, style=style, contexts=(AttentionContext(left, right),))  # type: ignore[arg-type]
    context = AttentionContext(left, right, chunk if style == "chunked_limited_with_rc" else None)
    first, end = visible_ranges(steps, config, context)
    column = np.arange(steps)
    got = (column >= first[:, None]) & (column < end[:, None])
    expected = network(config).encoder._visible(steps, context, torch.device("cpu"))
    assert np.array_equal(got, expected.numpy())
