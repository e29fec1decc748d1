"""The native subsampling matches the module: in float32 up to the order of sums, in int8 within a bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conure.engine.backends.cpu.native_subsampling import SPAN_STEPS, NativeSubsampling
from conure.engine.backends.cpu.onnx_subsampling import OnnxSubsampling
from conure.engine.backends.cpu.subsampling import open_subsampling
from conure.engine.backends.cpu.subsampling_state import SubsamplingState
from conure.engine.convert.clip_graphs import export_subsampling
from conure.engine.convert.pack_subsampling import write_subsampling
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, EncoderConfig
from conure.models.subsampling import Subsampling
from conure.native.library import has_native_kernels

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="native kernels need a compiler and a processor with VNNI"
)

INT8_RELATIVE = 0.012
"""Largest accepted error of int8 products, relative to the norm."""

SMALL = EncoderConfig(features=80, channels=48)
SHAPES = {
    "real": EncoderConfig(features=128, channels=256),
    "real, causal": EncoderConfig(features=128, channels=256, causal_subsampling=True),
    "80 bands": EncoderConfig(features=80, channels=64),
    "80 bands, causal": EncoderConfig(features=80, channels=64, causal_subsampling=True),
    "tiny": SMALL,
    "tiny, causal": replace(SMALL, causal_subsampling=True),
    "odd": EncoderConfig(features=27, channels=8),
    "odd, causal": EncoderConfig(features=27, channels=8, causal_subsampling=True),
}
CAUSAL = [name for name in SHAPES if "causal" in name]

OpenedShape = tuple[Subsampling, NativeSubsampling, EncoderConfig]


@pytest.fixture
def open_shape(tmp_path: Path) -> Callable[..., OpenedShape]:
    def opened(name: str, *, int8: bool = False, threads: int = 2) -> OpenedShape:
        torch.manual_seed(0)
        config = SHAPES[name]
        module = Subsampling(config).eval()
        write_subsampling(module, tmp_path, int8=int8)
        return module, NativeSubsampling(tmp_path, config, threads), config

    return opened


def noise(frames: int, config: EncoderConfig) -> np.ndarray:
    return np.random.default_rng(frames).standard_normal((frames, config.features)).astype(np.float32)


@torch.inference_mode()
def reference(module: Subsampling, mel: np.ndarray) -> np.ndarray:
    """The module's output without its final projection."""
    projection = torch.eye(module.out.in_features), torch.zeros(module.out.in_features)
    weights = {"out.weight": projection[0], "out.bias": projection[1]}
    steps, _ = torch.func.functional_call(module, weights, (torch.from_numpy(mel)[None], torch.tensor([len(mel)])))
    return np.asarray(steps[0])


def error(x: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(x - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 23, 8 * SPAN_STEPS + 1, 16 * SPAN_STEPS + 5])
def test_clips_match_the_module(open_shape: Callable[..., OpenedShape], name: str, frames: int) -> None:
    module, native, config = open_shape(name)
    mel = noise(frames, config)
    expected = reference(module, mel)
    assert len(expected) == module.out_steps(frames)
    np.testing.assert_allclose(native.subsample_clip(mel, len(expected)), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["real", "80 bands, causal"])
def test_int8_is_close_to_the_module(open_shape: Callable[..., OpenedShape], name: str) -> None:
    module, native, config = open_shape(name, int8=True)
    mel = noise(300, config)
    expected = reference(module, mel)
    x = native.subsample_clip(mel, len(expected))
    assert 1e-4 < error(x, expected) < INT8_RELATIVE
    assert min(error(*step) for step in zip(x, expected, strict=True)) > 0


def test_unaligned_channels_stay_in_float32(open_shape: Callable[..., OpenedShape]) -> None:
    module, native, config = open_shape("tiny", int8=True)
    mel = noise(50, config)
    np.testing.assert_allclose(native.subsample_clip(mel, module.out_steps(50)), reference(module, mel), atol=2e-6)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_match_whole_clips(open_shape: Callable[..., OpenedShape], name: str, chunk: int) -> None:
    module, native, config = open_shape(name)
    rng, state = random.Random(chunk), SubsamplingState(config, 3)
    mels = [noise(frames, config) for frames in (8 * 11 + 1, 8 * 6 + 4, 8 * 3 + 2)]
    outputs: list[list[np.ndarray]] = [[] for _ in mels]
    places = [0] * len(mels)
    while any(place < len(mel) for place, mel in zip(places, mels, strict=True)):
        rows = [row for row, mel in enumerate(mels) if places[row] < len(mel) and rng.random() < 0.7]
        pieces, steps = [], []
        for row in rows:
            size = STEP_FRAMES * chunk - LEAD_FRAMES * (places[row] == 0)
            mel = mels[row][places[row] : places[row] + size]
            lead = np.zeros((LEAD_FRAMES * (places[row] == 0), config.features), np.float32)
            places[row] += len(mel)
            pieces.append(state.append_frames(row, np.concatenate([lead, mel])))
            steps.append(-(-(len(mel) + len(lead)) // STEP_FRAMES))
        x = native.subsample_chunks(pieces, chunk)
        state.advance(np.array(rows, np.int64), np.array(steps, np.int64))
        for row, count, part in zip(rows, steps, x, strict=True):
            assert not part[count:].any()
            outputs[row].append(part[:count])
    for mel, parts in zip(mels, outputs, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), reference(module, mel), atol=2e-6)


@pytest.mark.parametrize("name", ["odd", "tiny, causal"])
def test_graph_matches_the_kernel(open_shape: Callable[..., OpenedShape], tmp_path: Path, name: str) -> None:
    module, native, config = open_shape(name)
    export_subsampling(module, tmp_path)
    graph = open_subsampling(tmp_path, config, threads=1, kernels=False)
    assert isinstance(graph, OnnxSubsampling)
    assert graph.width == native.width
    mel = noise(700, config)
    count = module.out_steps(len(mel))
    np.testing.assert_allclose(native.subsample_clip(mel, count), graph.subsample_clip(mel, count), atol=2e-6)
    pieces = [(0, mel[:17]), (2, mel[:25]), (1, mel[:25]), (2, mel[8:33]), (2, mel[:20])]
    np.testing.assert_allclose(native.subsample_chunks(pieces, 4), graph.subsample_chunks(pieces, 4), atol=2e-6)


def test_result_does_not_depend_on_threads(open_shape: Callable[..., OpenedShape]) -> None:
    mel = noise(900, SHAPES["80 bands"])
    parts = [open_shape("80 bands", int8=True, threads=threads)[1].subsample_clip(mel, 113) for threads in (1, 3)]
    assert np.array_equal(*parts)
