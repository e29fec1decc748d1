"""The native decoder gives the tokens of the loop in torch, over the same heads and over those in ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.cpu.decoder import open_decoder
from conure.engine.backends.cpu.native_decoder import HEADS_FILE, LABELLED_STEPS, SLICE_STEPS, NativeDecoder
from conure.engine.backends.cpu.onnx_heads import OnnxHeads
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import is_usable, read_converted
from conure.engine.convert.pack_heads import write_heads
from conure.models.network import Heads
from conure.models.preemptible import run_to_end
from conure.native.library import has_native_kernels
from tests.models.networks import OFFLINE, checkpoint_of, network

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI"
)

TDT, NEVER_STILL = (0, 1, 2, 3, 4), (1, 2, 3, 4)
COUNTS = np.array([40, 23, 1, 0])
SHAPES: dict[str, dict[str, object]] = {
    "rnnt": {"predictor_layers": 2, "predictor_width": 64, "joint_width": 64, "durations": ()},
    "tdt": {"predictor_layers": 2, "predictor_width": 64, "joint_width": 64, "durations": TDT},
    "tdt, always on": {"predictor_layers": 1, "predictor_width": 64, "joint_width": 64, "durations": NEVER_STILL},
    "odd widths": {"predictor_layers": 1, "predictor_width": 24, "joint_width": 72, "durations": TDT},
}
"""Beside them the vocabulary of 20 fills no block of columns, and the encoder's width of 36 no vector."""
ENCODER = replace(OFFLINE, width=36, heads=4)


def heads(shape: str, seed: int = 0, blank: float = 2.0) -> Heads:
    net = network(ENCODER, seed, **SHAPES[shape], max_symbols=3)
    with torch.no_grad():
        net.joint.enc.weight.mul_(4)
        net.joint.head.weight.mul_(6)
        net.joint.head.bias[net.config.blank] += blank
    return net.requires_grad_(False)


def ctc_heads() -> Heads:
    net = network(ENCODER, ctc=True)
    with torch.no_grad():
        net.ctc_head.weight.mul_(6)
    return net.requires_grad_(False)


def native(net: Heads, folder: Path, threads: int = 1, *, int8: bool = False) -> NativeDecoder:
    write_heads(net, folder, int8=int8)
    return NativeDecoder(folder, net.config, threads)


def encoded(rows: int = len(COUNTS), steps: int = 40, seed: int = 5, slowness: int = 1) -> np.ndarray:
    """Steps that stay as they are `slowness` times."""
    noise = np.random.default_rng(seed).standard_normal((rows, -(-steps // slowness), ENCODER.width))
    return noise.astype(np.float32).repeat(slowness, 1)[:, :steps]


def plainly(net: Heads, steps: np.ndarray, counts: np.ndarray) -> list[list[EmittedToken]]:
    return run_to_end(TorchDecoder(net).decode(torch.from_numpy(steps), torch.from_numpy(counts)))


def brief(rows: list[list[EmittedToken]]) -> list[list[tuple[int, int, int]]]:
    return [[(token.id, token.step, token.duration) for token in row] for row in rows]


def assert_same(got: list[list[EmittedToken]], expected: list[list[EmittedToken]], within: float = 1e-4) -> None:
    assert brief(got) == brief(expected)
    for mine, other in zip(got, expected, strict=True):
        sureness = [(token.log_probability, token.confidence) for token in mine]
        assert sureness == [pytest.approx((t.log_probability, t.confidence), abs=within) for t in other]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_floats_give_what_torch_gives(shape: str, threads: int, tmp_path: Path) -> None:
    emitted = 0
    for seed, blank in ((0, 1.0), (1, 2.0), (2, 3.0)):
        net, steps = heads(shape, seed, blank), encoded(seed=seed)
        expected = plainly(net, steps, COUNTS)
        assert_same(run_to_end(native(net, tmp_path, threads).decode(steps, COUNTS)), expected)
        emitted += sum(map(len, expected))
    assert emitted > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_give_what_onnx_runtime_gives(shape: str, tmp_path: Path) -> None:
    """But for what another way to compute an exponential turns over when activations are rounded."""
    net, steps = heads(shape), encoded(seed=1)
    convert(checkpoint_of(net), tmp_path, "int8")
    expected = plainly(OnnxHeads(read_converted(tmp_path), threads=1), steps, COUNTS)
    assert sum(map(len, expected)) > 15
    assert_same(run_to_end(native(net, tmp_path, 2, int8=True).decode(steps, COUNTS)), expected, within=0.1)


def test_a_network_that_never_blanks_is_moved_on(tmp_path: Path) -> None:
    for shape in ("rnnt", "tdt"):
        net = heads(shape, blank=-1e4)
        with torch.no_grad():
            net.joint.head.bias[net.config.vocabulary + 1 :].copy_(
                torch.tensor([1e4, 0, 0, 0, 0])[: len(net.config.durations)]
            )
        decoder, steps = native(net, tmp_path), encoded()
        tokens = run_to_end(decoder.decode(steps, COUNTS))
        assert [len(row) for row in tokens] == [3 * count for count in COUNTS]
        assert [token.step for token in tokens[1]] == [step for step in range(23) for _ in range(3)]
        assert_same(tokens, plainly(net, steps, COUNTS))


def test_of_equal_scores_the_first_is_taken(tmp_path: Path) -> None:
    net = heads("tdt")
    with torch.no_grad():
        net.joint.head.weight.zero_()
        net.joint.head.bias.zero_()
        net.joint.head.bias[[7, 19]] = 1
        net.joint.head.bias[[-1, -3]] = 1
    tokens = run_to_end(native(net, tmp_path).decode(encoded(), COUNTS))
    assert {(token.id, token.duration) for row in tokens for token in row} == {(7, 2)}
    assert_same(tokens, plainly(net, encoded(), COUNTS))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [5, 33, 70])
def test_a_row_does_not_depend_on_the_others(rows: int, int8: bool, tmp_path: Path) -> None:
    """As many as are decoded together, and more."""
    decoder = native(heads("tdt"), tmp_path, 2, int8=int8)
    steps, counts = encoded(rows, 30), np.random.default_rng(0).integers(0, 31, rows)
    together = run_to_end(decoder.decode(steps, counts))
    assert sum(map(len, together)) > rows
    for row in range(rows):
        assert_same(
            run_to_end(decoder.decode(steps[row : row + 1], counts[row : row + 1])), together[row : row + 1], 1e-5
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_clip_of_many_slices(shape: str, tmp_path: Path) -> None:
    net, counts = heads(shape), np.array([2 * SLICE_STEPS + 3, SLICE_STEPS, 9])
    steps = encoded(3, int(counts.max()))
    slices = native(net, tmp_path).decode(steps, counts)
    for _ in range(3):
        next(slices)
    assert_same(run_to_end(slices), plainly(net, steps, counts))


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_moved_on_in_place(shape: str, chunk: int, tmp_path: Path) -> None:
    """Rows that take turns give what they give alone, and reset they begin anew."""
    net = heads(shape)
    decoder, slots = native(net, tmp_path, int8=False), np.array([6, 0, 3])
    memory, rng = decoder.allocate(7), np.random.default_rng(chunk)
    for _ in range(2):
        steps, counts = encoded(3, 40, seed=chunk), np.array([40, 33, 26])
        places, found = np.zeros(3, np.int64), [[] for _ in slots]
        while (places < counts).any():
            who = np.flatnonzero((places < counts) & (rng.random(3) < 0.7))
            part = (
                np.stack(
                    [np.resize(steps[row, places[row] : places[row] + chunk], (chunk, ENCODER.width)) for row in who]
                )
                if len(who)
                else np.zeros((0, chunk, ENCODER.width), np.float32)
            )
            some = np.minimum(counts[who] - places[who], chunk)
            for row, emitted in zip(who, decoder.decode_chunk(part, some, memory, slots[who]), strict=True):
                found[row] += emitted
            places[who] += some
        assert_same(found, plainly(net, steps, counts))
        assert not memory.hidden[[1, 2, 4, 5]].any()
        memory.reset(slots)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flush_gives_tokens_and_changes_nothing(shape: str, tmp_path: Path) -> None:
    """By the kernels and by the plain loop; others of the batch move on."""
    net, chunk, slots, rng = heads(shape), 7, np.array([2, 0, 3]), np.random.default_rng(3)
    kernels, plain = native(net, tmp_path), TorchDecoder(net)
    flushing, steady = ((kernels.allocate(4), plain.allocate(4)) for _ in range(2))
    told = 0
    for turn in range(24):
        steps, flush = encoded(3, chunk, seed=turn), rng.random(3) < 0.6
        counts = np.where(flush, rng.integers(0, chunk + 1, 3), chunk)
        expected = plain.decode_chunk(steps, counts, flushing[1], slots, flush)
        assert_same(kernels.decode_chunk(steps, counts, flushing[0], slots, flush), expected)
        told += sum(len(tokens) for tokens, is_flush in zip(expected, flush, strict=True) if is_flush)
        moves = ~flush
        if moves.any():
            moved = [tokens for tokens, is_flush in zip(expected, flush, strict=True) if not is_flush]
            assert_same(kernels.decode_chunk(steps[moves], counts[moves], steady[0], slots[moves]), moved)
            assert_same(plain.decode_chunk(steps[moves], counts[moves], steady[1], slots[moves]), moved)
    assert told > 10


def test_the_memory_is_known_to_the_byte(tmp_path: Path) -> None:
    decoder = native(heads("odd widths"), tmp_path)
    widths = 2 * 32 + 128
    assert decoder.allocate(5).bytes == 5 * (4 * widths + 3 * 8)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cutting_into_chunks_gives_the_same(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    shape = data.draw(st.sampled_from(list(SHAPES)))
    blank, count = data.draw(st.floats(-2, 4)), data.draw(st.integers(1, 40))
    net, steps = heads(shape, blank=blank), encoded(1, count, seed=data.draw(st.integers(0, 99)))
    decoder = native(net, tmp_path_factory.mktemp("heads"))
    memory, at, found = decoder.allocate(1), 0, []
    while at < count:
        size = data.draw(st.integers(1, 9))
        part = steps[:, at : at + size]
        (emitted,) = decoder.decode_chunk(part, np.array([part.shape[1]]), memory, np.zeros(1, np.int64))
        found += emitted
        at += size
    assert_same([found], plainly(net, steps, np.array([count])))


@pytest.mark.parametrize("slowness", [1, 3])
def test_ctc_gives_what_torch_gives(slowness: int, tmp_path: Path) -> None:
    """Labels last through the bounds of slices, and so does the least of a token's confidences."""
    net, counts = ctc_heads(), np.array([LABELLED_STEPS + 40, 23, 1, 0])
    steps = encoded(steps=int(counts.max()), slowness=slowness)
    steps *= np.linspace(0.2, 2, steps.shape[1], dtype=np.float32)[:, None]
    steps[0, LABELLED_STEPS - 5 : LABELLED_STEPS + 5] = steps[0, 1]
    expected = plainly(net, steps, counts)
    assert sum(map(len, expected)) > 50
    assert any(token.step < LABELLED_STEPS < token.step + token.duration for token in expected[0])
    assert_same(run_to_end(native(net, tmp_path, 2).decode(steps, counts)), expected)


def test_steps_may_lie_apart(tmp_path: Path) -> None:
    decoder, steps = native(heads("tdt"), tmp_path), encoded()
    expected = run_to_end(decoder.decode(steps, COUNTS))
    for given_steps in (np.asfortranarray(steps), steps.astype(np.float64), torch.from_numpy(steps)):
        assert run_to_end(decoder.decode(given_steps, COUNTS)) == expected


def test_streams_need_a_transducer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no transducer"):
        native(ctc_heads(), tmp_path).allocate(1)


def test_a_folder_without_heads_is_made_anew(tmp_path: Path) -> None:
    net = network(OFFLINE, **SHAPES["tdt"])
    convert(checkpoint_of(net), tmp_path, "fp32")
    assert is_usable(tmp_path)
    converted = read_converted(tmp_path)
    assert isinstance(open_decoder(converted, 1), NativeDecoder)
    assert isinstance(open_decoder(converted, 1, kernels=False), TorchDecoder)
    (tmp_path / HEADS_FILE).with_suffix(".json").unlink()
    assert not is_usable(tmp_path)
    assert isinstance(open_decoder(converted, 1), TorchDecoder)


def test_decoding_loads_no_torch() -> None:
    code = "import sys, conure.engine.backends.cpu.native_decoder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
