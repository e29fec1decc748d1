"""The converted stream runner matches the modules, for streams of any age and in any batch."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.backends.stream_runner import StreamRunner
from conure.engine.backends.stream_state import StreamState
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import Precision
from conure.engine.convert.graph_names import ENCODER_FILE, STREAM_FILE
from conure.models.config import LEAD_FRAMES, AttentionContext, EncoderConfig
from conure.models.loader import build_network
from conure.models.network import Network
from tests.models.networks import OFFLINE, STREAMING, checkpoint_of, mel, network

INT8_RELATIVE = 0.06
"""Largest accepted error of int8 relative to the fp32 norm of a chunk; see test_clip_runner.py about narrow
networks."""

SLOTS = 6
SPOKEN = {"predictor_width": 16, "predictor_layers": 1, "joint_width": 16}
SHAPES: dict[str, EncoderConfig] = {
    "streaming": STREAMING,
    "batch norm and biases": replace(STREAMING, norm="batch_norm", bias=True, scale_input=True),
    "short past": replace(STREAMING, contexts=(AttentionContext(4, 3), AttentionContext(4, 1))),
    "single speaker": replace(STREAMING, speaker_layers=(0,)),
    "prompted": STREAMING,
}


class _Cache:
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def folders() -> Iterator[None]:
    """A folder for the conversions of this module; each is made once."""
    with tempfile.TemporaryDirectory() as folder:
        _Cache.folder = Path(folder)
        yield
    runners.cache_clear()


@functools.cache
def net_of(name: str) -> Network:
    return network(SHAPES[name], prompts=5 * (name == "prompted"), **SPOKEN)


@functools.cache
def runners(name: str, precision: Precision = "fp32") -> tuple[CpuStreamRunner, TorchStreamRunner]:
    checkpoint = checkpoint_of(net_of(name))
    folder = _Cache.folder / f"{name}-{precision}"
    convert(checkpoint, folder, precision)
    return CpuStreamRunner(folder, threads=1), TorchStreamRunner(*build_network(checkpoint), torch.device("cpu"))


@dataclass(frozen=True)
class Step:
    mel: np.ndarray
    frames: np.ndarray
    rows: np.ndarray
    prompts: np.ndarray | None
    opened: np.ndarray
    """Slots that get a new stream before this step."""

    def run(self, runner: StreamRunner[Any], state: StreamState[Any]) -> list[Tensor]:
        """Encodes the step; returns the encoded steps of each row, [counts, D]."""
        state.reset(self.opened)
        encoded, counts = runner.encode_chunk(self.mel, self.frames, state, self.rows, self.prompts)
        assert encoded.shape == (len(self.rows), self.mel.shape[1] // 8, encoded.shape[2])
        return [torch.as_tensor(row[:count]) for row, count in zip(encoded, counts.tolist(), strict=True)]

    def for_row(self, row: int) -> Step | None:
        """This step with a single slot, or None if the slot is not in it."""
        place = np.flatnonzero(self.rows == row)
        if len(place) == 0:
            return None
        prompts = None if self.prompts is None else self.prompts[place]
        return Step(self.mel[place], self.frames[place], self.rows[place], prompts, self.opened[self.opened == row])


def random_steps(name: str, chunk: int, count: int, seed: int) -> Iterator[Step]:
    """Random steps: streams begin, idle, end with a partial chunk and free their slot."""
    rng, generator = random.Random(seed), np.random.default_rng(seed)
    is_over, prompted = [True] * SLOTS, name == "prompted"
    for _ in range(count):
        rows = rng.sample(range(SLOTS), rng.randint(1, SLOTS))
        frames, opened = [], []
        for row in rows:
            is_new = is_over[row] or rng.random() < 0.05
            kind = "whole" if is_new else rng.choices(["whole", "idle", "partial"], [8, 2, 1])[0]
            opened += [row] * is_new
            is_over[row] = kind == "partial"
            frames.append({"whole": 8 * chunk, "idle": 0, "partial": rng.randint(1, 8 * chunk)}[kind])
            if is_new and rng.random() < 0.2:
                frames[-1] = rng.randint(LEAD_FRAMES + 1, 8 * chunk)
                is_over[row] = True
        whole = generator.standard_normal((len(rows), 8 * chunk, STREAMING.features), np.float32)
        prompts = np.array([row % 5 for row in rows]) if prompted else None
        yield Step(whole, np.array(frames), np.array(rows), prompts, np.array(opened, np.int64))


def compare(name: str, precision: Precision, chunk: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Results of both runners for the same rows of the same steps."""
    onnx, reference = runners(name, precision)
    states = onnx.allocate(SLOTS), reference.allocate(SLOTS)
    for step in random_steps(name, chunk, 30, seed):
        yield from zip(step.run(onnx, states[0]), step.run(reference, states[1]), strict=True)


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
@pytest.mark.parametrize("name", ["streaming", "prompted"])
def test_fp32_matches_the_modules(name: str, chunk: int) -> None:
    for got, expected in compare(name, "fp32", chunk, seed=chunk):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["batch norm and biases", "short past", "single speaker"])
def test_encoder_variants(name: str) -> None:
    for got, expected in compare(name, "fp32", 2, seed=5):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 14])
def test_int8_stays_within_its_bound(chunk: int) -> None:
    pairs = [(got, expected) for got, expected in compare("streaming", "int8", chunk, seed=chunk) if len(expected)]
    errors = [float((got - expected).norm() / expected.norm()) for got, expected in pairs]
    assert len(errors) > 30
    assert max(errors) < INT8_RELATIVE


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rows_are_independent(precision: Precision, chunk: int) -> None:
    check_rows_are_independent(runners("streaming", precision)[0], chunk)


def check_rows_are_independent(runner: StreamRunner[Any], chunk: int) -> None:
    """Two slots have the same results, bit for bit, alone and among others."""
    all_steps = list(random_steps("streaming", chunk, 20, seed=9))
    together = runner.allocate(SLOTS)
    results_together = [step.run(runner, together) for step in all_steps]
    for row in (0, SLOTS - 1):
        alone = runner.allocate(SLOTS)
        for step, encoded in zip(all_steps, results_together, strict=True):
            single = step.for_row(row)
            if single is not None:
                assert torch.equal(single.run(runner, alone)[0], encoded[step.rows.tolist().index(row)])


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
@pytest.mark.parametrize("name", ["onnx fp32", "onnx int8", "torch"])
def test_a_flush_does_not_change_later_chunks(name: str, chunk: int) -> None:
    onnx, reference = runners("streaming", "int8" if name.endswith("int8") else "fp32")
    check_flushes(reference if name == "torch" else onnx, chunk, within=1e-5 * (name == "torch"))


def check_flushes(runner: StreamRunner[Any], chunk: int, within: float = 0.0) -> None:
    """Flushes before a chunk, also while other rows advance, do not change the result of the chunk: bit for bit if rows
    are independent."""
    rng, generator = random.Random(chunk), np.random.default_rng(chunk)
    reference, flushed = runner.allocate(SLOTS), runner.allocate(SLOTS)
    for step in random_steps("streaming", chunk, 20, seed=chunk):
        expected = step.run(runner, reference)
        flushed.reset(step.opened)
        for _ in range(rng.randint(0, 2)):
            noise = generator.standard_normal(step.mel.shape, np.float32)
            frames = np.array([rng.randint(0, 8 * chunk) for _ in step.rows])
            runner.encode_chunk(noise, frames, flushed, step.rows, step.prompts, np.ones(len(frames), bool))
        is_flush = np.array([rng.random() < 0.5 for _ in step.rows])
        results = [runner.encode_chunk(step.mel, step.frames, flushed, step.rows, step.prompts, is_flush)]
        advanced = step.rows[~is_flush]
        if is_flush.any():
            results.append(
                runner.encode_chunk(
                    step.mel[is_flush], step.frames[is_flush], flushed, step.rows[is_flush], step.prompts, None
                )
            )
        for place, row in enumerate(step.rows.tolist()):
            encoded, _ = results[0] if row in advanced else results[1]
            at = place if row in advanced else int(is_flush[:place].sum())
            count = len(expected[place])
            torch.testing.assert_close(torch.as_tensor(encoded[at][:count]), expected[place], atol=within, rtol=0)


def test_stream_equals_whole_clip() -> None:
    onnx, reference = runners("streaming")
    whole, lengths = mel([433])
    expected, counts = reference.network.encode(whole, lengths, context=AttentionContext(70, 1))
    state, parts, at = onnx.allocate(1), [], 0
    while at < int(lengths):
        lead = LEAD_FRAMES * (at == 0)
        chunk = np.zeros((1, 16, STREAMING.features), np.float32)
        part = whole[0, at : at + 16 - lead]
        chunk[0, lead : lead + len(part)] = part
        encoded, steps = onnx.encode_chunk(chunk, np.array([lead + len(part)]), state, np.array([0]))
        parts.append(torch.from_numpy(encoded[0, : steps[0]]))
        at += len(part)
    torch.testing.assert_close(torch.cat(parts), expected[0, : int(counts)], atol=1e-4, rtol=0)


def test_pools_are_updated_in_place() -> None:
    """A step changes only the steps that it writes, in the memory that was allocated."""
    onnx, _ = runners("streaming")
    state = onnx.allocate(2)
    before = {name: pool.numpy().copy() for name, pool in state.encoder.pools.items()}
    noise = np.random.default_rng(0).standard_normal((1, 16, STREAMING.features), np.float32)
    onnx.encode_chunk(noise, np.array([16]), state, np.array([1]))
    for name, pool in state.encoder.pools.items():
        changed = (pool.numpy() != before[name]).any(-1)
        written = 2 * (1 if name.startswith("filtered") else STREAMING.heads)
        assert np.count_nonzero(changed) == written


def test_graphs_share_one_file_of_weights() -> None:
    runners("streaming", "int8")
    folder = _Cache.folder / "streaming-int8"
    assert {path.name for path in folder.glob("*.weights")} >= {"encoder.weights", "front.weights"}
    assert not (folder / STREAM_FILE).with_suffix(".weights").exists()
    assert (folder / STREAM_FILE).stat().st_size < 2 * (folder / ENCODER_FILE).stat().st_size


def test_missing_language_prompt_is_rejected() -> None:
    onnx, _ = runners("prompted")
    with pytest.raises(ValueError, match="language prompt"):
        onnx.encode_chunk(np.zeros((1, 16, 32), np.float32), np.array([16]), onnx.allocate(1), np.array([0]))


def test_a_network_without_streaming_is_rejected(tmp_path: Path) -> None:
    convert(checkpoint_of(network(OFFLINE, **SPOKEN)), tmp_path, "fp32")
    assert not (tmp_path / STREAM_FILE).exists()
    with pytest.raises(ValueError, match="not cache-aware"):
        CpuStreamRunner(tmp_path, threads=1)
