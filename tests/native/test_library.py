"""Each kernel compared with its formula in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conure.native import library
from conure.native.library import (
    BLOCK,
    SIMD_LANES,
    Attention,
    Clips,
    Distances,
    Epilogue,
    Filter,
    Kernels,
    Norm,
    Rings,
    StreamStep,
    Weight,
    has_native_kernels,
    pack,
)

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="native kernels need a compiler and a processor with VNNI"
)

SLOTS = 5


@pytest.fixture(params=[1, 2, 5])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gate(y: np.ndarray) -> np.ndarray:
    """In each 64 columns, the second half are the gates of the first half."""
    parts = y.reshape(len(y), -1, 2, BLOCK // 2)
    return (parts[:, :, 0] / (1 + np.exp(-parts[:, :, 1]))).reshape(len(y), -1)


def normalised(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return scaled * weight + bias


def product(x: np.ndarray, weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Exact product of rows that are rounded to +-127."""
    scale = np.abs(x).max(1, keepdims=True) / 127
    rounded = np.rint(x * (1 / scale)).astype(np.int64)
    return (rounded @ weight.T.astype(np.int64)) * scale * scales


@pytest.mark.parametrize(("columns", "depth"), [(64, 16), (192, 192), (64, 1024)])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 29, 60, 200])
def test_products_equal_those_of_rounded_rows(
    kernels: Kernels, rng: np.random.Generator, rows: int, columns: int, depth: int
) -> None:
    x, weight = noise(rng, rows, depth), rng.integers(-127, 128, (columns, depth)).astype(np.int8)
    scales, bias = rng.random(columns, np.float32) / depth, noise(rng, columns)
    expected = product(x, weight, scales) + bias
    got = kernels.multiply(kernels.quantise(x), Weight(pack(weight), scales, bias), np.empty_like(expected, np.float32))
    # Values half-way between two integers may be rounded either way; all others are equal.
    assert np.abs(got - expected).max() <= 127 * scales.max() * np.abs(x).max() / 127 + 1e-4
    assert np.mean(np.abs(got - expected) > 1e-4) < 0.05


@pytest.mark.parametrize(
    ("epilogue", "function"),
    [
        (Epilogue.NOTHING, lambda y: y),
        (Epilogue.SILU, silu),
        (Epilogue.RELU, lambda y: np.maximum(y, 0)),
        (Epilogue.ADD, lambda y: y + 1),
        (Epilogue.GATE, gate),
    ],
)
def test_epilogues(
    kernels: Kernels, rng: np.random.Generator, epilogue: Epilogue, function: Callable[[np.ndarray], np.ndarray]
) -> None:
    x, weight = noise(rng, 20, 64), rng.integers(-127, 128, (128, 64)).astype(np.int8)
    scales = np.full(128, 1 / 500, np.float32)
    expected, right = function(product(x, weight, scales)), Weight(pack(weight), scales, None)
    got = kernels.multiply(kernels.quantise(x), right, np.ones(expected.shape, np.float32), epilogue)
    np.testing.assert_allclose(got, expected, atol=0.3, rtol=0)
    assert np.mean(np.abs(got - expected) > 1e-4) < 0.05


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("width", [16, 64, 1024])
def test_quantise_normalises_and_gates(kernels: Kernels, rng: np.random.Generator, width: int, gated: bool) -> None:
    x, weight, bias = noise(rng, 9, width) * 5 + 2, noise(rng, width), noise(rng, width)
    expected = normalised(x, weight, bias)
    norm, out = Norm(weight, bias, 1e-5), np.empty_like(x)
    kernels.normalise(x, norm, out)
    np.testing.assert_allclose(out, expected, atol=1e-4, rtol=1e-4)
    identity = Weight(pack(np.eye(64, width, dtype=np.int8)), np.ones(64, np.float32), None)
    got = kernels.multiply(kernels.quantise(x, norm, gated=gated), identity, np.empty((9, 64), np.float32))
    expected = silu(expected) if gated else expected
    step = np.abs(expected).max(1, keepdims=True) / 127
    count = min(width, 64)
    assert (np.abs(got[:, :count] - expected[:, :count]) <= 0.51 * step).all()


def test_a_row_of_zeros(kernels: Kernels) -> None:
    weight = Weight(pack(np.full((64, 64), 127, np.int8)), np.ones(64, np.float32), None)
    quantised = kernels.quantise(np.zeros((3, 64), np.float32))
    assert not kernels.multiply(quantised, weight, np.ones((3, 64), np.float32)).any()


@pytest.mark.parametrize(("past", "max_chunk", "chunk"), [(70, 14, 14), (70, 14, 2), (70, 14, 1), (9, 4, 2), (3, 5, 5)])
@pytest.mark.parametrize(("heads", "width"), [(4, 16), (2, 128)])
def test_attention_over_rings(
    kernels: Kernels, rng: np.random.Generator, heads: int, width: int, past: int, max_chunk: int, chunk: int
) -> None:
    model_width, columns = heads * width, past + 2 * max_chunk
    table = (noise(rng, heads, width, columns + 2 * SIMD_LANES) * width**-0.5).astype(np.float16)
    shift = noise(rng, model_width)
    parameters, rings = Attention(shift, table, past, max_chunk), Rings(SLOTS, heads, width, past + max_chunk)
    ages, inputs = np.zeros(SLOTS, np.int64), [np.empty((0, 2, heads, width), np.float32) for _ in range(SLOTS)]
    for _ in range(12):
        rows = rng.choice(SLOTS, 3, replace=False)
        counts = np.where(rng.random(3) < 0.8, chunk, rng.integers(1, chunk + 1, 3))
        projected = noise(rng, 3 * chunk, 3 * model_width)
        projected[:, :model_width] *= width**-0.5
        stream_step, out = StreamStep(rows, ages[rows], counts, chunk), np.empty((3 * chunk, model_width), np.float32)
        got = kernels.attend(parameters, rings, stream_step, projected, out)
        for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
            own_rows = projected[place * chunk : place * chunk + count].reshape(count, 3, heads, width)
            inputs[row] = np.concatenate([inputs[row], own_rows[:, 1:]])
            visible_past = min(int(ages[row]), past // chunk * chunk)
            keys, values = inputs[row][len(inputs[row]) - visible_past - count :].transpose(1, 0, 2, 3)
            for step in range(count):
                distances = visible_past + step - np.arange(visible_past + count)
                scores = np.einsum("hd,khd->hk", own_rows[step, 0], keys)
                position_query = own_rows[step, 0] + shift.reshape(heads, width)
                scores += np.einsum("hd,hdk->hk", position_query, table[:, :, past + max_chunk - distances])
                weights = np.exp(scores - scores.max(1, keepdims=True))
                expected = np.einsum("hk,khd->hd", weights / weights.sum(1, keepdims=True), values)
                np.testing.assert_allclose(got[place * chunk + step], expected.ravel(), atol=4e-3, rtol=0)
        ages[rows] += counts


def test_a_dominant_key(kernels: Kernels) -> None:
    """Very small weights become zero instead of denormal numbers."""
    parameters, rings = Attention(np.zeros(16, np.float32), np.zeros((1, 16, 64), np.float16), 4, 2), Rings(1, 1, 16, 6)
    projected = np.zeros((2, 48), np.float32)
    projected[:, :16], projected[0, 16:32], projected[:, 32:] = 5, 5, [[0.1], [1e-30]]
    stream_step = StreamStep(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([2]), 2)
    got = kernels.attend(parameters, rings, stream_step, projected, np.empty((2, 16), np.float32))
    np.testing.assert_allclose(got, 0.1, rtol=1e-3)


def test_keys_beyond_float16_stay_finite(kernels: Kernels) -> None:
    parameters, rings = Attention(np.zeros(16, np.float32), np.zeros((1, 16, 64), np.float16), 4, 2), Rings(1, 1, 16, 6)
    projected = np.full((2, 48), 1e6, np.float32)
    stream_step = StreamStep(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([2]), 2)
    assert np.isfinite(kernels.attend(parameters, rings, stream_step, projected, np.empty((2, 16), np.float32))).all()


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("width", [16, 80, 1024])
def test_stream_filter_continues_from_its_state(
    kernels: Kernels, rng: np.random.Generator, chunk: int, width: int
) -> None:
    size, ring = 9, 8 + 7
    weight, bias = noise(rng, size, width), noise(rng, width)
    parameters, memory = Filter(weight, bias), np.zeros((SLOTS, ring, width), np.float32)
    ages, inputs = np.zeros(SLOTS, np.int64), [np.zeros((size - 1, width), np.float32) for _ in range(SLOTS)]
    memory[:] = 7  # state of the slot's previous stream
    for _ in range(12):
        rows, x = rng.choice(SLOTS, 3, replace=False), noise(rng, 3 * chunk, width)
        got = kernels.filter(
            parameters, memory, StreamStep(rows, ages[rows], np.full(3, chunk), chunk), x, np.empty_like(x)
        )
        for place, row in enumerate(rows):
            own_rows = slice(place * chunk, (place + 1) * chunk)
            inputs[row] = np.concatenate([inputs[row], x[own_rows]])
            visible = inputs[row][-chunk - size + 1 :]
            expected = [(visible[step : step + size] * weight).sum(0) + bias for step in range(chunk)]
            np.testing.assert_allclose(got[own_rows], expected, atol=1e-3)
        ages[rows] += chunk


def test_many_short_loops_run_every_task(rng: np.random.Generator) -> None:
    """With more threads than processors, threads are late for loops."""
    kernels, x = Kernels(7), noise(rng, 3, 64)
    weight = Weight(pack(rng.integers(-127, 128, (256, 64)).astype(np.int8)), np.ones(256, np.float32), None)
    expected = kernels.multiply(kernels.quantise(x), weight, np.empty((3, 256), np.float32)).copy()
    for _ in range(3000):
        out = np.full((3, 256), np.nan, np.float32)
        assert np.array_equal(kernels.multiply(kernels.quantise(x), weight, out), expected)


def test_closing_a_pool_ends_its_threads() -> None:
    def native_threads() -> int:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))

    before = native_threads()
    pools = [Kernels(4) for _ in range(8)]
    assert native_threads() == before + 24
    del pools
    assert native_threads() == before


def test_kernels_are_unavailable_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(library, "LIBRARY_PATH", f"{tmp_path}/none.so")
    library.library.cache_clear()
    library.has_native_kernels.cache_clear()
    try:
        assert not library.has_native_kernels()
        with pytest.raises(OSError, match=r"none\.so"):
            Kernels(1)
    finally:
        library.library.cache_clear()
        library.has_native_kernels.cache_clear()


COUNTS = (1, 7, 70)


def clips_of(first: list[int], end: list[int]) -> Clips:
    return Clips(np.array(COUNTS), np.array(first), np.array(end))


def full_attention() -> Clips:
    return clips_of([0] * sum(COUNTS), [count for count in COUNTS for _ in range(count)])


@pytest.mark.parametrize(("heads", "width"), [(2, 32), (1, 144)])
def test_attention_within_clips(kernels: Kernels, rng: np.random.Generator, heads: int, width: int) -> None:
    reach, rows = 96, sum(COUNTS)
    projected, shift = noise(rng, rows, 3 * heads * width) / width**0.25, noise(rng, heads * width)
    table = rng.integers(-127, 128, (heads, 2 * reach, width)).astype(np.int8)
    scales = rng.random((heads, 2 * reach), np.float32) / (127 * width**0.5)
    parameters = Distances(np.stack([pack(head) for head in table]), scales, shift)
    got = kernels.attend_clips(parameters, full_attention(), projected, np.empty((rows, heads * width), np.float32))
    query, key, value = (part.reshape(rows, heads, width) for part in np.split(projected, 3, 1))
    position_query = query + shift.reshape(heads, width)
    expected, begin = np.empty_like(query), 0
    for count in COUNTS:
        here = slice(begin, begin + count)
        columns = reach - np.arange(count)[:, None] + np.arange(count)
        position_scores = np.einsum("ihd,hcd,hc->hic", position_query[here], table, scales)
        scores = np.einsum("ihd,jhd->hij", query[here], key[here])
        scores += np.take_along_axis(position_scores, np.broadcast_to(columns, scores.shape), 2)
        weights = np.exp(scores - scores.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        expected[here] = np.einsum("hij,jhd->ihd", weights, value[here])
        begin += count
    error = got - expected.reshape(rows, -1)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(expected)


def test_attention_is_limited_to_the_visible_range(kernels: Kernels, rng: np.random.Generator) -> None:
    """Steps outside of the visible range, in the same clip or another one, have no influence."""
    rows, size = sum(COUNTS), 32
    parameters = Distances(
        np.stack([pack(np.zeros((192, size), np.int8))]), np.ones((1, 192), np.float32), noise(rng, size)
    )
    clips = clips_of([0, *range(7), *range(70)], [1, *range(1, 8), *range(1, 71)])
    projected = noise(rng, rows, 3 * size)
    got = kernels.attend_clips(parameters, clips, projected, np.empty((rows, size), np.float32))
    values = projected[:, 2 * size :]
    assert np.abs(got - values).max() < np.abs(values).max() / 2000


@pytest.mark.parametrize("before", [4, 8])
def test_filter_within_clips(kernels: Kernels, rng: np.random.Generator, before: int) -> None:
    size, width = 9, 144
    x, weight, bias = noise(rng, sum(COUNTS), width), noise(rng, size, width), noise(rng, width)
    got = kernels.filter_clips(Filter(weight, bias), before, full_attention(), x, np.empty_like(x))
    for part, out in zip(np.split(x, np.cumsum(COUNTS)[:-1]), np.split(got, np.cumsum(COUNTS)[:-1]), strict=True):
        padded = np.pad(part, ((before, size - 1 - before), (0, 0)))
        expected = sum(padded[k : k + len(part)] * weight[k] for k in range(size)) + bias
        assert np.allclose(out, expected, atol=1e-5)
