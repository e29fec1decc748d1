"""The native subsampling gives what the module gives: in float32 up to the order of sums, in bytes within a bound."""

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
from conure.engine.convert.clip_graphs import export_front
from conure.engine.convert.pack_subsampling import write_front
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, EncoderConfig
from conure.models.subsampling import Subsampling
from conure.native.library import has_native_kernels

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI"
)

INT8_RELATIVE = 0.012
"""Largest accepted error of products of bytes, relative to the norm."""

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

Opened = tuple[Subsampling, NativeSubsampling, EncoderConfig]


@pytest.fixture
def open_shape(tmp_path: Path) -> Callable[..., Opened]:
    def opened(name: str, *, int8: bool = False, threads: int = 2) -> Opened:
        torch.manual_seed(0)
        config = SHAPES[name]
        module = Subsampling(config).eval()
        write_front(module, tmp_path, int8=int8)
        return module, NativeSubsampling(tmp_path, config, threads), config

    return opened


def noise(frames: int, config: EncoderConfig) -> np.ndarray:
    return np.random.default_rng(frames).standard_normal((frames, config.features)).astype(np.float32)


@torch.inference_mode()
def plain(module: Subsampling, mel: np.ndarray) -> np.ndarray:
    """Without the projection that ends it."""
    given = torch.eye(module.out.in_features), torch.zeros(module.out.in_features)
    weights = {"out.weight": given[0], "out.bias": given[1]}
    steps, _ = torch.func.functional_call(module, weights, (torch.from_numpy(mel)[None], torch.tensor([len(mel)])))
    return np.asarray(steps[0])


def error(x: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(x - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 23, 8 * SPAN_STEPS + 1, 16 * SPAN_STEPS + 5])
def test_clips_are_those_of_the_module(open_shape: Callable[..., Opened], name: str, frames: int) -> None:
    module, front, config = open_shape(name)
    mel = noise(frames, config)
    wanted = plain(module, mel)
    assert len(wanted) == module.out_steps(frames)
    np.testing.assert_allclose(front.clip(mel, len(wanted)), wanted, atol=2e-6)


@pytest.mark.parametrize("name", ["real", "80 bands, causal"])
def test_in_bytes_they_are_near(open_shape: Callable[..., Opened], name: str) -> None:
    module, front, config = open_shape(name, int8=True)
    mel = noise(300, config)
    wanted = plain(module, mel)
    x = front.clip(mel, len(wanted))
    assert 1e-4 < error(x, wanted) < INT8_RELATIVE
    assert min(error(*step) for step in zip(x, wanted, strict=True)) > 0


def test_channels_that_are_no_whole_blocks_stay_in_floats(open_shape: Callable[..., Opened]) -> None:
    module, front, config = open_shape("tiny", int8=True)
    mel = noise(50, config)
    np.testing.assert_allclose(front.clip(mel, module.out_steps(50)), plain(module, mel), atol=2e-6)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_of_streams_are_those_of_whole_clips(open_shape: Callable[..., Opened], name: str, chunk: int) -> None:
    module, front, config = open_shape(name)
    rng, memory = random.Random(chunk), SubsamplingState(config, 3)
    mels = [noise(frames, config) for frames in (8 * 11 + 1, 8 * 6 + 4, 8 * 3 + 2)]
    heard: list[list[np.ndarray]] = [[] for _ in mels]
    places = [0] * len(mels)
    while any(place < len(mel) for place, mel in zip(places, mels, strict=True)):
        rows = [row for row, mel in enumerate(mels) if places[row] < len(mel) and rng.random() < 0.7]
        pieces, steps = [], []
        for row in rows:
            size = STEP_FRAMES * chunk - LEAD_FRAMES * (places[row] == 0)
            mel = mels[row][places[row] : places[row] + size]
            lead = np.zeros((LEAD_FRAMES * (places[row] == 0), config.features), np.float32)
            places[row] += len(mel)
            pieces.append(memory.hear(row, np.concatenate([lead, mel])))
            steps.append(-(-(len(mel) + len(lead)) // STEP_FRAMES))
        x = front.chunks(pieces, chunk)
        memory.move_on(np.array(rows, np.int64), np.array(steps, np.int64))
        for row, count, part in zip(rows, steps, x, strict=True):
            assert not part[count:].any()
            heard[row].append(part[:count])
    for mel, parts in zip(mels, heard, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), plain(module, mel), atol=2e-6)


@pytest.mark.parametrize("name", ["odd", "tiny, causal"])
def test_the_graph_is_its_twin(open_shape: Callable[..., Opened], tmp_path: Path, name: str) -> None:
    module, front, config = open_shape(name)
    export_front(module, tmp_path)
    twin = open_subsampling(tmp_path, config, threads=1, kernels=False)
    assert isinstance(twin, OnnxSubsampling)
    assert twin.width == front.width
    mel = noise(700, config)
    count = module.out_steps(len(mel))
    np.testing.assert_allclose(front.clip(mel, count), twin.clip(mel, count), atol=2e-6)
    pieces = [(0, mel[:17]), (2, mel[:25]), (1, mel[:25]), (2, mel[8:33]), (2, mel[:20])]
    np.testing.assert_allclose(front.chunks(pieces, 4), twin.chunks(pieces, 4), atol=2e-6)


def test_threads_make_no_difference(open_shape: Callable[..., Opened]) -> None:
    mel = noise(900, SHAPES["80 bands"])
    parts = [open_shape("80 bands", int8=True, threads=threads)[1].clip(mel, 113) for threads in (1, 3)]
    assert np.array_equal(*parts)
