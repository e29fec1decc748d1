"""The converted encoder gives what the modules give: fp32 as close as another order of sums allows, int8 in a bound."""

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

from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.engine.backends.cpu.onnx_subsampling import PIECE_STEPS
from conure.engine.backends.cpu.window_runner import CpuWindowRunner
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.engine.convert import convert as converting
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import Precision, read_converted
from conure.engine.convert.graph_names import REACH
from conure.engine.convert.saturation import adds_in_16_bits
from conure.models.config import STEP_FRAMES, AttentionContext
from conure.models.loader import build_network
from conure.models.preemptible import run_to_end
from tests.models.networks import OFFLINE, STREAMING, checkpoint_of, network
from tests.parity.references import FAMILIES, RELATIVE, recordings, reference, relative_error

INT8_RELATIVE, REDUCED_RELATIVE = 0.04, 0.06
"""Largest accepted error of int8 against fp32, relative to the norm of what the encoder gives, and that of weights of 7
bits, which are used where the processor adds products in 16 bits. The reference networks are narrow, their sums have
few terms; at the real width of 1024 random offline networks have 0.014 and 0.021 after 6 layers, 0.018 and 0.028 after
24, streaming ones 0.020 and 0.028, 0.028 and 0.040."""

SECOND = 16_000
STEP = SECOND * 8 // 100
SHAPES = {
    "offline": OFFLINE,
    "offline, limited": replace(OFFLINE, contexts=(AttentionContext(5, 3),)),
    "offline, past only": replace(OFFLINE, contexts=(AttentionContext(-1, 0),)),
    "local": replace(OFFLINE, local=True, contexts=(AttentionContext(16, 16),)),
    "global": replace(OFFLINE, local=True, contexts=(AttentionContext(16, 16),), global_tokens=1),
    "globals": replace(
        OFFLINE,
        local=True,
        contexts=(AttentionContext(5, 5),),
        global_tokens=4,
        global_spacing=3,
        global_separate=True,
    ),
    "streaming": STREAMING,
    "streaming, whole past": replace(STREAMING, contexts=(AttentionContext(-1, 6),)),
    "right context": replace(OFFLINE, style="chunked_limited_with_rc", contexts=(AttentionContext(8, 2, 4),)),
    "wide right context": replace(OFFLINE, style="chunked_limited_with_rc", contexts=(AttentionContext(-1, -1, 4),)),
}


@pytest.fixture(scope="module", autouse=True)
def folders() -> Iterator[None]:
    """Where conversions of this file live; each is made once."""
    with tempfile.TemporaryDirectory() as folder:
        _Place.folder = Path(folder)
        yield
    runners.cache_clear()


class _Place:
    folder: Path


@functools.cache
def runners(name: str, precision: Precision = "fp32") -> tuple[CpuClipRunner, TorchClipRunner]:
    """Of a family's reference checkpoint, or of a random network of one of the shapes."""
    checkpoint = checkpoint_of(network(SHAPES[name], ctc=True)) if name in SHAPES else reference(name).checkpoint
    folder = _Place.folder / f"{name}-{precision}"
    convert(checkpoint, folder, precision)
    net, front = build_network(checkpoint)
    return CpuClipRunner(folder, threads=1), TorchClipRunner(net, front, torch.device("cpu"))


def bound(precision: Precision) -> float:
    if precision == "fp32":
        return RELATIVE
    return REDUCED_RELATIVE if adds_in_16_bits() else INT8_RELATIVE


def noise(*samples: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return generator.standard_normal((len(samples), max(samples)), np.float32) * np.float32(0.1), np.array(samples)


def spoken() -> tuple[np.ndarray, np.ndarray]:
    samples, lengths = recordings()
    return samples.numpy(), lengths.numpy()


def prompts_for(name: str) -> np.ndarray | None:
    slots = reference(name).checkpoint.config.prompts
    return np.arange(3) % slots if slots else None


def error_of(
    name: str, precision: Precision, samples: np.ndarray, lengths: np.ndarray, prompts: np.ndarray | None = None
) -> float:
    onnx, plain = runners(name, precision)
    got, counts = run_to_end(onnx.encode(samples, lengths, prompts))
    expected, expected_counts = run_to_end(plain.encode(samples, lengths, prompts))
    assert counts.tolist() == expected_counts.tolist()
    assert got.shape == expected.shape
    return _error(got, expected, counts)


def _error(got: Any, expected: Any, counts: Any) -> float:
    return relative_error(*map(torch.as_tensor, (got, expected, counts)))


@pytest.mark.parametrize("name", FAMILIES)
def test_fp32_gives_the_numbers_of_the_modules(name: str) -> None:
    assert error_of(name, "fp32", *spoken(), prompts_for(name)) < RELATIVE


@pytest.mark.parametrize("name", FAMILIES)
def test_int8_stays_within_its_bound(name: str) -> None:
    """That of this processor."""
    assert error_of(name, "int8", *spoken(), prompts_for(name)) < bound("int8")


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_seven_bits_stay_within_theirs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are right on every processor, and all that those without VNNI have: `auto` takes fp32 there."""
    monkeypatch.setattr(converting, "saturates", lambda _: True)
    convert(reference(name).checkpoint, tmp_path / "reduced", "int8")
    onnx, (_, plain) = CpuClipRunner(tmp_path / "reduced", threads=1, kernels=False), runners(name)
    got, counts = run_to_end(onnx.encode(*spoken(), prompts_for(name)))
    expected, _ = run_to_end(plain.encode(*spoken(), prompts_for(name)))
    assert _error(got, expected, counts) < REDUCED_RELATIVE


@pytest.mark.parametrize("name", FAMILIES)
def test_fp32_gives_the_tokens_of_the_modules(name: str) -> None:
    rows = []
    for runner in runners(name):
        tokens = run_to_end(runner.decoder.decode(*run_to_end(runner.encode(*spoken(), prompts_for(name)))))
        rows.append([[(token.id, token.step, token.duration) for token in row] for row in tokens])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", SHAPES)
def test_every_way_of_seeing_is_kept(name: str) -> None:
    """Clips around the sizes of pieces and of windows, of different lengths in a batch."""
    edge = PIECE_STEPS * STEP
    assert error_of(name, "fp32", *noise(edge, edge + STEP, 2 * edge + 1000, edge - 700)) < RELATIVE


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize("name", ["offline", "streaming", "local", "global", "globals"])
def test_the_shortest_clips(name: str, steps: int) -> None:
    assert error_of(name, "fp32", *noise(steps * STEP)) < RELATIVE


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_clips_longer_than_the_tables(precision: Precision) -> None:
    samples, lengths = noise((REACH + 20) * STEP, 5 * STEP)
    assert error_of("offline", precision, samples, lengths) < bound(precision)


def test_longer_tables_do_not_change_short_clips() -> None:
    onnx, _ = runners("offline", "int8")
    before, _ = run_to_end(onnx.encode(*noise(40 * STEP)))
    run_to_end(onnx.encode(*noise((REACH + 20) * STEP)))
    after, _ = run_to_end(onnx.encode(*noise(40 * STEP)))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_batch_gives_what_each_clip_gives_alone(precision: Precision) -> None:
    onnx, _ = runners("tdt", precision)
    samples, lengths = spoken()
    together, counts = run_to_end(onnx.encode(samples, lengths))
    for row, length in enumerate(lengths.tolist()):
        alone, count = run_to_end(onnx.encode(samples[row : row + 1, :length], lengths[row : row + 1]))
        assert _error(together[row : row + 1], alone, count) < RELATIVE
        assert counts[row] == count


@pytest.mark.parametrize("name", ["offline", "streaming", "local", "global", "globals"])
def test_a_row_without_a_frame_leaves_the_others_alone(name: str) -> None:
    onnx, plain = runners(name)
    samples, lengths = noise(20 * STEP, 0)
    together, counts = run_to_end(onnx.encode(samples, lengths))
    alone, _ = run_to_end(onnx.encode(samples[:1], lengths[:1]))
    assert counts.tolist() == run_to_end(plain.encode(samples, lengths))[1].tolist()
    assert _error(together[:1], alone, counts[:1]) < RELATIVE
    assert np.isfinite(together).all()


def test_a_language_prompt_must_be_given() -> None:
    onnx, _ = runners("nemotron_prompt")
    with pytest.raises(ValueError, match="prompt slot"):
        run_to_end(onnx.encode(*spoken()))


def test_nothing_of_the_encoder_is_loaded_but_by_its_graph() -> None:
    onnx, _ = runners("tdt")
    assert not onnx.checkpoint.tensors
    assert all(not name.startswith("encoder.") for name in read_converted(onnx.folder).heads())


def test_the_frames_of_a_step_are_what_pieces_are_cut_by() -> None:
    onnx, plain = runners("streaming")
    frames = np.arange(1, 4 * STEP_FRAMES * PIECE_STEPS, 7)
    assert onnx.steps(frames).tolist() == plain.network.encoder.pre_encode.out_steps(torch.from_numpy(frames)).tolist()


@pytest.mark.parametrize("context", [(8, 2, 4), (6, 1, 1), (0, 0, 3), (-1, -1, 2), (5, 3, None), (-1, -1, None)])
def test_windows_see_what_they_are_told(context: tuple[int, int, int | None]) -> None:
    onnx, plain = runners("right context")
    windows = CpuWindowRunner(onnx), TorchWindowRunner(plain.network, plain.feature_extractor, torch.device("cpu"))
    frames, left = np.array([19 * STEP_FRAMES, 0, 7 * STEP_FRAMES - 3]), np.array([6, 0, 5])
    shape = 3, frames.max(), plain.config.mel.features
    mel = np.random.default_rng(5).standard_normal(shape, np.float32)
    told = AttentionContext(*context)
    (got, counts), (expected, expected_counts) = (runner.encode(mel, frames, left, told) for runner in windows)
    assert counts.tolist() == expected_counts.tolist()
    assert counts.max() == min(context[2] or 1, 13)
    assert _error(got, expected, counts) < RELATIVE
