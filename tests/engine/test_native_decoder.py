"""The native decoder emits the same tokens as torch's loop, with torch's heads and with heads in ONNX Runtime."""

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
from conure.engine.backends.cpu.native_decoder import CTC_SLICE_STEPS, HEADS_FILE, SLICE_STEPS, NativeDecoder
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
    not has_native_kernels(), reason="native kernels need a compiler and a processor with VNNI"
)

TDT, NONZERO_DURATIONS = (0, 1, 2, 3, 4), (1, 2, 3, 4)
COUNTS = np.array([40, 23, 1, 0])
SHAPES: dict[str, dict[str, object]] = {
    "rnnt": {"predictor_layers": 2, "predictor_width": 64, "joint_width": 64, "durations": ()},
    "tdt": {"predictor_layers": 2, "predictor_width": 64, "joint_width": 64, "durations": TDT},
    "tdt without duration 0": {
        "predictor_layers": 1,
        "predictor_width": 64,
        "joint_width": 64,
        "durations": NONZERO_DURATIONS,
    },
    "odd widths": {"predictor_layers": 1, "predictor_width": 24, "joint_width": 72, "durations": TDT},
}
"""The vocabulary of 20 is no multiple of a block, and the encoder's width of 36 no multiple of a vector."""
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


def encoded(rows: int = len(COUNTS), steps: int = 40, seed: int = 5, repeats: int = 1) -> np.ndarray:
    """Random steps, each repeated `repeats` times."""
    noise = np.random.default_rng(seed).standard_normal((rows, -(-steps // repeats), ENCODER.width))
    return noise.astype(np.float32).repeat(repeats, 1)[:, :steps]


def decode_in_torch(net: Heads, steps: np.ndarray, counts: np.ndarray) -> list[list[EmittedToken]]:
    return run_to_end(TorchDecoder(net).decode(torch.from_numpy(steps), torch.from_numpy(counts)))


def summary(rows: list[list[EmittedToken]]) -> list[list[tuple[int, int, int]]]:
    return [[(token.id, token.step, token.duration) for token in row] for row in rows]


def assert_same(got: list[list[EmittedToken]], expected: list[list[EmittedToken]], within: float = 1e-4) -> None:
    assert summary(got) == summary(expected)
    for got_row, expected_row in zip(got, expected, strict=True):
        scores = [(token.log_probability, token.confidence) for token in got_row]
        assert scores == [pytest.approx((t.log_probability, t.confidence), abs=within) for t in expected_row]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_matches_torch(shape: str, threads: int, tmp_path: Path) -> None:
    emitted = 0
    for seed, blank in ((0, 1.0), (1, 2.0), (2, 3.0)):
        net, steps = heads(shape, seed, blank), encoded(seed=seed)
        expected = decode_in_torch(net, steps, COUNTS)
        assert_same(run_to_end(native(net, tmp_path, threads).decode(steps, COUNTS)), expected)
        emitted += sum(map(len, expected))
    assert emitted > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_matches_onnx_runtime(shape: str, tmp_path: Path) -> None:
    """Except for rounding differences of activations, caused by another implementation of exp."""
    net, steps = heads(shape), encoded(seed=1)
    convert(checkpoint_of(net), tmp_path, "int8")
    expected = decode_in_torch(OnnxHeads(read_converted(tmp_path), threads=1), steps, COUNTS)
    assert sum(map(len, expected)) > 15
    assert_same(run_to_end(native(net, tmp_path, 2, int8=True).decode(steps, COUNTS)), expected, within=0.1)


def test_max_symbols_limits_a_network_without_blanks(tmp_path: Path) -> None:
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
        assert_same(tokens, decode_in_torch(net, steps, COUNTS))


def test_first_of_equal_scores_wins(tmp_path: Path) -> None:
    net = heads("tdt")
    with torch.no_grad():
        net.joint.head.weight.zero_()
        net.joint.head.bias.zero_()
        net.joint.head.bias[[7, 19]] = 1
        net.joint.head.bias[[-1, -3]] = 1
    tokens = run_to_end(native(net, tmp_path).decode(encoded(), COUNTS))
    assert {(token.id, token.duration) for row in tokens for token in row} == {(7, 2)}
    assert_same(tokens, decode_in_torch(net, encoded(), COUNTS))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [5, 33, 70])
def test_rows_are_independent(rows: int, int8: bool, tmp_path: Path) -> None:
    """Fewer and more rows than the decoder's batch size."""
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
    assert_same(run_to_end(slices), decode_in_torch(net, steps, counts))


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_state_is_updated_by_slot(shape: str, chunk: int, tmp_path: Path) -> None:
    """Interleaved streams decode like single ones, and reset slots begin again."""
    net = heads(shape)
    decoder, slots = native(net, tmp_path, int8=False), np.array([6, 0, 3])
    state, rng = decoder.allocate(7), np.random.default_rng(chunk)
    for _ in range(2):
        steps, counts = encoded(3, 40, seed=chunk), np.array([40, 33, 26])
        places, found = np.zeros(3, np.int64), [[] for _ in slots]
        while (places < counts).any():
            active = np.flatnonzero((places < counts) & (rng.random(3) < 0.7))
            part = (
                np.stack(
                    [np.resize(steps[row, places[row] : places[row] + chunk], (chunk, ENCODER.width)) for row in active]
                )
                if len(active)
                else np.zeros((0, chunk, ENCODER.width), np.float32)
            )
            part_counts = np.minimum(counts[active] - places[active], chunk)
            for row, emitted in zip(active, decoder.decode_chunk(part, part_counts, state, slots[active]), strict=True):
                found[row] += emitted
            places[active] += part_counts
        assert_same(found, decode_in_torch(net, steps, counts))
        assert not state.hidden[[1, 2, 4, 5]].any()
        state.reset(slots)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flush_emits_tokens_and_keeps_the_state(shape: str, tmp_path: Path) -> None:
    """In the native and the torch decoder, while other rows of the batch advance."""
    net, chunk, slots, rng = heads(shape), 7, np.array([2, 0, 3]), np.random.default_rng(3)
    kernels, reference = native(net, tmp_path), TorchDecoder(net)
    flushed_states, steady_states = ((kernels.allocate(4), reference.allocate(4)) for _ in range(2))
    flushed_tokens = 0
    for step in range(24):
        steps, flush = encoded(3, chunk, seed=step), rng.random(3) < 0.6
        counts = np.where(flush, rng.integers(0, chunk + 1, 3), chunk)
        expected = reference.decode_chunk(steps, counts, flushed_states[1], slots, flush)
        assert_same(kernels.decode_chunk(steps, counts, flushed_states[0], slots, flush), expected)
        flushed_tokens += sum(len(tokens) for tokens, is_flush in zip(expected, flush, strict=True) if is_flush)
        advances = ~flush
        if advances.any():
            advanced_tokens = [tokens for tokens, is_flush in zip(expected, flush, strict=True) if not is_flush]
            assert_same(
                kernels.decode_chunk(steps[advances], counts[advances], steady_states[0], slots[advances]),
                advanced_tokens,
            )
            assert_same(
                reference.decode_chunk(steps[advances], counts[advances], steady_states[1], slots[advances]),
                advanced_tokens,
            )
    assert flushed_tokens > 10


def test_state_size_is_exact(tmp_path: Path) -> None:
    decoder = native(heads("odd widths"), tmp_path)
    widths = 2 * 32 + 128
    assert decoder.allocate(5).bytes == 5 * (4 * widths + 3 * 8)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chunk_boundaries_do_not_matter(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    shape = data.draw(st.sampled_from(list(SHAPES)))
    blank, count = data.draw(st.floats(-2, 4)), data.draw(st.integers(1, 40))
    net, steps = heads(shape, blank=blank), encoded(1, count, seed=data.draw(st.integers(0, 99)))
    decoder = native(net, tmp_path_factory.mktemp("heads"))
    state, at, found = decoder.allocate(1), 0, []
    while at < count:
        size = data.draw(st.integers(1, 9))
        part = steps[:, at : at + size]
        (emitted,) = decoder.decode_chunk(part, np.array([part.shape[1]]), state, np.zeros(1, np.int64))
        found += emitted
        at += size
    assert_same([found], decode_in_torch(net, steps, np.array([count])))


@pytest.mark.parametrize("repeats", [1, 3])
def test_ctc_matches_torch(repeats: int, tmp_path: Path) -> None:
    """Repeated labels may cross the boundary of slices, and so may the lowest confidence of a token."""
    net, counts = ctc_heads(), np.array([CTC_SLICE_STEPS + 40, 23, 1, 0])
    steps = encoded(steps=int(counts.max()), repeats=repeats)
    steps *= np.linspace(0.2, 2, steps.shape[1], dtype=np.float32)[:, None]
    steps[0, CTC_SLICE_STEPS - 5 : CTC_SLICE_STEPS + 5] = steps[0, 1]
    expected = decode_in_torch(net, steps, counts)
    assert sum(map(len, expected)) > 50
    assert any(token.step < CTC_SLICE_STEPS < token.step + token.duration for token in expected[0])
    assert_same(run_to_end(native(net, tmp_path, 2).decode(steps, counts)), expected)


def test_strided_rows(tmp_path: Path) -> None:
    decoder, steps = native(heads("tdt"), tmp_path), encoded()
    expected = run_to_end(decoder.decode(steps, COUNTS))
    for given_steps in (np.asfortranarray(steps), steps.astype(np.float64), torch.from_numpy(steps)):
        assert run_to_end(decoder.decode(given_steps, COUNTS)) == expected


def test_streams_need_a_transducer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no transducer"):
        native(ctc_heads(), tmp_path).allocate(1)


def test_a_folder_without_heads_is_unusable(tmp_path: Path) -> None:
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
