"""The converted clip runner matches the modules: fp32 up to the order of sums, int8 within a bound."""

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
from conure.engine.convert import convert as convert_module
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
"""Largest accepted error of int8 relative to the norm of the fp32 output: with 8-bit weights, and with the 7-bit
weights for processors that accumulate in 16 bits. The reference networks are narrow, so their sums have few terms. At
the real width of 1024, random offline networks have 0.014 and 0.021 after 6 layers, 0.018 and 0.028 after 24 layers;
streaming networks 0.020 and 0.028, 0.028 and 0.040."""

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
    """A folder for the conversions of this module; each is made once."""
    with tempfile.TemporaryDirectory() as folder:
        _Cache.folder = Path(folder)
        yield
    runners.cache_clear()


class _Cache:
    folder: Path


@functools.cache
def runners(name: str, precision: Precision = "fp32") -> tuple[CpuClipRunner, TorchClipRunner]:
    """Runners of a family's reference checkpoint, or of a random network of one of the shapes."""
    checkpoint = checkpoint_of(network(SHAPES[name], ctc=True)) if name in SHAPES else reference(name).checkpoint
    folder = _Cache.folder / f"{name}-{precision}"
    convert(checkpoint, folder, precision)
    net, log_mel = build_network(checkpoint)
    return CpuClipRunner(folder, threads=1), TorchClipRunner(net, log_mel, torch.device("cpu"))


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
    count = reference(name).checkpoint.config.prompts
    return np.arange(3) % count if count else None


def error_of(
    name: str, precision: Precision, samples: np.ndarray, lengths: np.ndarray, prompts: np.ndarray | None = None
) -> float:
    onnx, torch_runner = runners(name, precision)
    got, counts = run_to_end(onnx.encode(samples, lengths, prompts))
    expected, expected_counts = run_to_end(torch_runner.encode(samples, lengths, prompts))
    assert counts.tolist() == expected_counts.tolist()
    assert got.shape == expected.shape
    return _error(got, expected, counts)


def _error(got: Any, expected: Any, counts: Any) -> float:
    return relative_error(*map(torch.as_tensor, (got, expected, counts)))


@pytest.mark.parametrize("name", FAMILIES)
def test_fp32_matches_the_modules(name: str) -> None:
    assert error_of(name, "fp32", *spoken(), prompts_for(name)) < RELATIVE


@pytest.mark.parametrize("name", FAMILIES)
def test_int8_stays_within_its_bound(name: str) -> None:
    """The bound depends on the processor."""
    assert error_of(name, "int8", *spoken(), prompts_for(name)) < bound("int8")


@pytest.mark.parametrize("name", FAMILIES)
def test_7_bit_weights_stay_within_their_bound(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """7-bit weights are accurate on every processor; those without VNNI have only them (there, `auto` selects fp32)."""
    monkeypatch.setattr(convert_module, "saturates", lambda _: True)
    convert(reference(name).checkpoint, tmp_path / "reduced", "int8")
    onnx, (_, torch_runner) = CpuClipRunner(tmp_path / "reduced", threads=1, kernels=False), runners(name)
    got, counts = run_to_end(onnx.encode(*spoken(), prompts_for(name)))
    expected, _ = run_to_end(torch_runner.encode(*spoken(), prompts_for(name)))
    assert _error(got, expected, counts) < REDUCED_RELATIVE


@pytest.mark.parametrize("name", FAMILIES)
def test_fp32_emits_the_tokens_of_the_modules(name: str) -> None:
    rows = []
    for runner in runners(name):
        tokens = run_to_end(runner.decoder.decode(*run_to_end(runner.encode(*spoken(), prompts_for(name)))))
        rows.append([[(token.id, token.step, token.duration) for token in row] for row in tokens])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", SHAPES)
def test_attention_variants(name: str) -> None:
    """Batches of clips whose lengths are close to those of pieces and windows."""
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
def test_clips_are_independent(precision: Precision) -> None:
    onnx, _ = runners("tdt", precision)
    samples, lengths = spoken()
    together, counts = run_to_end(onnx.encode(samples, lengths))
    for row, length in enumerate(lengths.tolist()):
        alone, count = run_to_end(onnx.encode(samples[row : row + 1, :length], lengths[row : row + 1]))
        assert _error(together[row : row + 1], alone, count) < RELATIVE
        assert counts[row] == count


@pytest.mark.parametrize("name", ["offline", "streaming", "local", "global", "globals"])
def test_an_empty_clip_does_not_change_the_others(name: str) -> None:
    onnx, torch_runner = runners(name)
    samples, lengths = noise(20 * STEP, 0)
    together, counts = run_to_end(onnx.encode(samples, lengths))
    alone, _ = run_to_end(onnx.encode(samples[:1], lengths[:1]))
    assert counts.tolist() == run_to_end(torch_runner.encode(samples, lengths))[1].tolist()
    assert _error(together[:1], alone, counts[:1]) < RELATIVE
    assert np.isfinite(together).all()


def test_missing_language_prompt_is_rejected() -> None:
    onnx, _ = runners("nemotron_prompt")
    with pytest.raises(ValueError, match="language prompt"):
        run_to_end(onnx.encode(*spoken()))


def test_encoder_weights_are_only_in_the_graph() -> None:
    onnx, _ = runners("tdt")
    assert not onnx.checkpoint.tensors
    assert all(not name.startswith("encoder.") for name in read_converted(onnx.folder).heads())


def test_steps_match_the_subsampling() -> None:
    onnx, torch_runner = runners("streaming")
    frames = np.arange(1, 4 * STEP_FRAMES * PIECE_STEPS, 7)
    assert (
        onnx.steps(frames).tolist()
        == torch_runner.network.encoder.pre_encode.out_steps(torch.from_numpy(frames)).tolist()
    )


@pytest.mark.parametrize("context", [(8, 2, 4), (6, 1, 1), (0, 0, 3), (-1, -1, 2), (5, 3, None), (-1, -1, None)])
def test_windows_use_the_given_context(context: tuple[int, int, int | None]) -> None:
    onnx, torch_runner = runners("right context")
    windows = (
        CpuWindowRunner(onnx),
        TorchWindowRunner(torch_runner.network, torch_runner.feature_extractor, torch.device("cpu")),
    )
    frames, left = np.array([19 * STEP_FRAMES, 0, 7 * STEP_FRAMES - 3]), np.array([6, 0, 5])
    shape = 3, frames.max(), torch_runner.config.mel.features
    mel = np.random.default_rng(5).standard_normal(shape, np.float32)
    attention_context = AttentionContext(*context)
    (got, counts), (expected, expected_counts) = (
        runner.encode(mel, frames, left, attention_context) for runner in windows
    )
    assert counts.tolist() == expected_counts.tolist()
    assert counts.max() == min(context[2] or 1, 13)
    assert _error(got, expected, counts) < RELATIVE
