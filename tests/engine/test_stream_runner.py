"""The converted streaming step gives what the modules give, for rows of any age, whoever else is in the turn."""

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
"""Largest accepted error of int8 against fp32 of a chunk, relative to its norm; see test_onnx_runner on narrow ones."""

SLOTS = 6
SPOKEN = {"predictor_width": 16, "predictor_layers": 1, "joint_width": 16}
SHAPES: dict[str, EncoderConfig] = {
    "streaming": STREAMING,
    "batch norm and biases": replace(STREAMING, norm="batch_norm", bias=True, scale_input=True),
    "short past": replace(STREAMING, contexts=(AttentionContext(4, 3), AttentionContext(4, 1))),
    "one speaker alone": replace(STREAMING, speaker_layers=(0,)),
    "prompted": STREAMING,
}


class _Place:
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def folders() -> Iterator[None]:
    """Where conversions of this file live; each is made once."""
    with tempfile.TemporaryDirectory() as folder:
        _Place.folder = Path(folder)
        yield
    runners.cache_clear()


@functools.cache
def net_of(name: str) -> Network:
    return network(SHAPES[name], prompts=5 * (name == "prompted"), **SPOKEN)


@functools.cache
def runners(name: str, precision: Precision = "fp32") -> tuple[CpuStreamRunner, TorchStreamRunner]:
    checkpoint = checkpoint_of(net_of(name))
    folder = _Place.folder / f"{name}-{precision}"
    convert(checkpoint, folder, precision)
    return CpuStreamRunner(folder, threads=1), TorchStreamRunner(*build_network(checkpoint), torch.device("cpu"))


@dataclass(frozen=True)
class Turn:
    mel: np.ndarray
    frames: np.ndarray
    rows: np.ndarray
    prompts: np.ndarray | None
    opened: np.ndarray
    """Rows that get a new stream before it."""

    def run(self, runner: StreamRunner[Any], state: StreamState[Any]) -> list[Tensor]:
        """Encoded steps of each row of the turn, [counts, D]."""
        state.reset(self.opened)
        encoded, counts = runner.encode_chunk(self.mel, self.frames, state, self.rows, self.prompts)
        assert encoded.shape == (len(self.rows), self.mel.shape[1] // 8, encoded.shape[2])
        return [torch.as_tensor(row[:count]) for row, count in zip(encoded, counts.tolist(), strict=True)]

    def of(self, row: int) -> Turn | None:
        """What it holds for one row alone."""
        place = np.flatnonzero(self.rows == row)
        if len(place) == 0:
            return None
        prompts = None if self.prompts is None else self.prompts[place]
        return Turn(self.mel[place], self.frames[place], self.rows[place], prompts, self.opened[self.opened == row])


def turns(name: str, chunk: int, count: int, seed: int) -> Iterator[Turn]:
    """Rows begin, idle, end with a partial chunk and make room for others, at random."""
    rng, generator = random.Random(seed), np.random.default_rng(seed)
    over, prompted = [True] * SLOTS, name == "prompted"
    for _ in range(count):
        rows = rng.sample(range(SLOTS), rng.randint(1, SLOTS))
        frames, opened = [], []
        for row in rows:
            fresh = over[row] or rng.random() < 0.05
            kind = "whole" if fresh else rng.choices(["whole", "idle", "partial"], [8, 2, 1])[0]
            opened += [row] * fresh
            over[row] = kind == "partial"
            frames.append({"whole": 8 * chunk, "idle": 0, "partial": rng.randint(1, 8 * chunk)}[kind])
            if fresh and rng.random() < 0.2:
                frames[-1] = rng.randint(LEAD_FRAMES + 1, 8 * chunk)
                over[row] = True
        whole = generator.standard_normal((len(rows), 8 * chunk, STREAMING.features), np.float32)
        prompts = np.array([row % 5 for row in rows]) if prompted else None
        yield Turn(whole, np.array(frames), np.array(rows), prompts, np.array(opened, np.int64))


def play(name: str, precision: Precision, chunk: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What both runners make of the same rows of the same turns."""
    onnx, plain = runners(name, precision)
    states = onnx.allocate(SLOTS), plain.allocate(SLOTS)
    for turn in turns(name, chunk, 30, seed):
        yield from zip(turn.run(onnx, states[0]), turn.run(plain, states[1]), strict=True)


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
@pytest.mark.parametrize("name", ["streaming", "prompted"])
def test_fp32_gives_the_numbers_of_the_modules(name: str, chunk: int) -> None:
    for got, expected in play(name, "fp32", chunk, seed=chunk):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["batch norm and biases", "short past", "one speaker alone"])
def test_every_form_of_the_encoder_is_kept(name: str) -> None:
    for got, expected in play(name, "fp32", 2, seed=5):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 14])
def test_int8_stays_within_its_bound(chunk: int) -> None:
    pairs = [(got, expected) for got, expected in play("streaming", "int8", chunk, seed=chunk) if len(expected)]
    errors = [float((got - expected).norm() / expected.norm()) for got, expected in pairs]
    assert len(errors) > 30
    assert max(errors) < INT8_RELATIVE


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_does_not_depend_on_the_others(precision: Precision, chunk: int) -> None:
    check_rows_alone(runners("streaming", precision)[0], chunk)


def check_rows_alone(runner: StreamRunner[Any], chunk: int) -> None:
    """Two rows hear alone, bit for bit, what they hear among others."""
    played = list(turns("streaming", chunk, 20, seed=9))
    together = runner.allocate(SLOTS)
    heard = [turn.run(runner, together) for turn in played]
    for row in (0, SLOTS - 1):
        alone = runner.allocate(SLOTS)
        for turn, encoded in zip(played, heard, strict=True):
            mine = turn.of(row)
            if mine is not None:
                assert torch.equal(mine.run(runner, alone)[0], encoded[turn.rows.tolist().index(row)])


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
@pytest.mark.parametrize("name", ["onnx fp32", "onnx int8", "torch"])
def test_a_flush_changes_nothing_of_what_is_encoded_after_it(name: str, chunk: int) -> None:
    onnx, plain = runners("streaming", "int8" if name.endswith("int8") else "fp32")
    check_flushes(plain if name == "torch" else onnx, chunk, within=1e-5 * (name == "torch"))


def check_flushes(runner: StreamRunner[Any], chunk: int, within: float = 0.0) -> None:
    """Rows that are flushed before their chunk comes, some of them while others move on, give what they give without:
    bit for bit where a row does not depend on the others."""
    rng, generator = random.Random(chunk), np.random.default_rng(chunk)
    plain, flushed = runner.allocate(SLOTS), runner.allocate(SLOTS)
    for turn in turns("streaming", chunk, 20, seed=chunk):
        expected = turn.run(runner, plain)
        flushed.reset(turn.opened)
        for _ in range(rng.randint(0, 2)):
            noise = generator.standard_normal(turn.mel.shape, np.float32)
            frames = np.array([rng.randint(0, 8 * chunk) for _ in turn.rows])
            runner.encode_chunk(noise, frames, flushed, turn.rows, turn.prompts, np.ones(len(frames), bool))
        stays = np.array([rng.random() < 0.5 for _ in turn.rows])
        some = [runner.encode_chunk(turn.mel, turn.frames, flushed, turn.rows, turn.prompts, stays)]
        moved = turn.rows[~stays]
        if stays.any():
            some.append(
                runner.encode_chunk(turn.mel[stays], turn.frames[stays], flushed, turn.rows[stays], turn.prompts, None)
            )
        for place, row in enumerate(turn.rows.tolist()):
            encoded, _ = some[0] if row in moved else some[1]
            at = place if row in moved else int(stays[:place].sum())
            count = len(expected[place])
            torch.testing.assert_close(torch.as_tensor(encoded[at][:count]), expected[place], atol=within, rtol=0)


def test_streamed_equals_whole() -> None:
    onnx, plain = runners("streaming")
    whole, lengths = mel([433])
    expected, counts = plain.network.encode(whole, lengths, context=AttentionContext(70, 1))
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


def test_pools_are_changed_where_they_are() -> None:
    """What a turn does not write stays as it was, bit for bit, in the memory that was allocated."""
    onnx, _ = runners("streaming")
    state = onnx.allocate(2)
    before = {name: pool.numpy().copy() for name, pool in state.encoder.pools.items()}
    noise = np.random.default_rng(0).standard_normal((1, 16, STREAMING.features), np.float32)
    onnx.encode_chunk(noise, np.array([16]), state, np.array([1]))
    for name, pool in state.encoder.pools.items():
        changed = (pool.numpy() != before[name]).any(-1)
        written = 2 * (1 if name.startswith("filtered") else STREAMING.heads)
        assert np.count_nonzero(changed) == written


def test_both_sorts_of_graphs_read_one_file_of_weights() -> None:
    runners("streaming", "int8")
    folder = _Place.folder / "streaming-int8"
    assert {path.name for path in folder.glob("*.weights")} >= {"encoder.weights", "front.weights"}
    assert not (folder / STREAM_FILE).with_suffix(".weights").exists()
    assert (folder / STREAM_FILE).stat().st_size < 2 * (folder / ENCODER_FILE).stat().st_size


def test_a_language_prompt_must_be_given() -> None:
    onnx, _ = runners("prompted")
    with pytest.raises(ValueError, match="prompt slot"):
        onnx.encode_chunk(np.zeros((1, 16, 32), np.float32), np.array([16]), onnx.allocate(1), np.array([0]))


def test_a_network_for_clips_alone_is_refused(tmp_path: Path) -> None:
    convert(checkpoint_of(network(OFFLINE, **SPOKEN)), tmp_path, "fp32")
    assert not (tmp_path / STREAM_FILE).exists()
    with pytest.raises(ValueError, match="chunk by chunk"):
        CpuStreamRunner(tmp_path, threads=1)
