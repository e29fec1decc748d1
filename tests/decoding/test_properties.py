"""Decoders compared with textbook loops over lists, for any network, batch, window and chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conure.decoding.ctc import decode_ctc
from conure.decoding.emitted_token import EmittedToken
from conure.decoding.label_looping import LabelLooping
from conure.decoding.token_buffer import TokenBuffer
from conure.decoding.transducer import TransducerState, decode_transducer
from tests.decoding.scripted import HISTORIES, Scripted

DURATIONS = [(), (0, 1, 2, 3, 4), (0, 1), (1, 2, 8)]
Decode = Callable[[Tensor, Tensor, Any], tuple[TokenBuffer, Any]]


@st.composite
def scripts(draw: st.DrawFn, durations: tuple[int, ...] = ()) -> tuple[Scripted, Tensor, Tensor]:
    """Heads, encoded [B, S, J] and counts [B]. Scores are integers plus a fraction per output, so there are no ties."""
    vocabulary, rows, size = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 14))
    seed, blanks = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 4, 8]))
    generator = torch.Generator().manual_seed(seed)
    outputs = vocabulary + 1 + len(durations)
    steps = torch.randint(0, 12, (rows, size, outputs), generator=generator) + torch.arange(outputs) / 64
    steps[..., vocabulary] += blanks
    by_history = torch.randint(0, 6, (HISTORIES, outputs), generator=generator).float()
    counts = torch.tensor(draw(st.lists(st.integers(0, size), min_size=rows, max_size=rows)))
    return Scripted(vocabulary, durations, draw(st.integers(1, 3)), by_history), steps, counts


transducers = st.sampled_from(DURATIONS).flatmap(scripts)
cuts = st.lists(st.integers(0, 14), max_size=5)


def in_chunks(decode: Decode, steps: Tensor, counts: Tensor, places: Iterable[int]) -> list[list[EmittedToken]]:
    """Decodes audio that arrives in chunks, some of which are empty."""
    size, state = steps.shape[1], None
    found: list[list[EmittedToken]] = [[] for _ in counts]
    for begin, end in pairwise([0, *sorted(min(place, size) for place in places), size]):
        tokens, state = decode(steps[:, begin:end], (counts - begin).clamp(0, end - begin), state)
        for row, emitted in zip(found, tokens, strict=True):
            row += emitted
    return found


def assert_same(got: list[list[EmittedToken]], expected: list[list[EmittedToken]]) -> None:
    assert [[(t.id, t.step, t.duration) for t in row] for row in got] == [
        [(t.id, t.step, t.duration) for t in row] for row in expected
    ]
    for mine, other in zip(chain(*got), chain(*expected), strict=True):
        assert mine.log_probability == pytest.approx(other.log_probability, abs=1e-5)
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-5)


@given(script=transducers, window=st.integers(1, 9), places=cuts)
@settings(max_examples=80, deadline=None)
def test_a_transducer_equals_the_textbook_loop(
    script: tuple[Scripted, Tensor, Tensor], window: int, places: list[int]
) -> None:
    heads, steps, counts = script

    def decode(part: Tensor, some: Tensor, state: TransducerState | None) -> tuple[TokenBuffer, TransducerState]:
        return decode_transducer(heads, part, some, state, window)  # type: ignore[arg-type]

    expected = [heads.textbook_transducer(row[:count].tolist()) for row, count in zip(steps, counts, strict=True)]
    assert_same(in_chunks(decode, steps, counts, places), expected)


@given(script=transducers, window=st.integers(1, 5), times=st.integers(1, 4), more=st.integers(0, 3), places=cuts)
@settings(max_examples=80, deadline=None)
def test_label_looping_equals_the_textbook_loop_with_surplus_iterations(
    script: tuple[Scripted, Tensor, Tensor], window: int, times: int, more: int, places: list[int]
) -> None:
    heads, steps, counts = script
    loop = LabelLooping(heads, len(counts), steps.shape[1], times, window)  # type: ignore[arg-type]

    def decode(part: Tensor, some: Tensor, state: TransducerState | None) -> tuple[TokenBuffer, TransducerState]:
        loop.begin(part, some, state or TransducerState.start(heads, len(counts)))  # type: ignore[arg-type]
        while loop.unfinished:
            loop.advance()
        for _ in range(more):
            loop.advance()
        assert not loop.unfinished
        return loop.tokens, loop.state()

    expected = [heads.textbook_transducer(row[:count].tolist()) for row, count in zip(steps, counts, strict=True)]
    assert_same(in_chunks(decode, steps, counts, places), expected)


@given(script=scripts())
@settings(max_examples=80, deadline=None)
def test_ctc_equals_runs_of_labels(script: tuple[Scripted, Tensor, Tensor]) -> None:
    heads, steps, counts = script
    tokens, state = decode_ctc(heads, steps, counts)  # type: ignore[arg-type]
    assert_same(
        list(tokens), [heads.textbook_ctc(row[:count].tolist()) for row, count in zip(steps, counts, strict=True)]
    )
    assert torch.equal(state.decoded, counts)


@given(script=scripts(), places=cuts)
@settings(max_examples=80, deadline=None)
def test_a_run_over_two_chunks_is_one_token(script: tuple[Scripted, Tensor, Tensor], places: list[int]) -> None:
    """It has the start of the run; its duration ends with the first chunk."""
    heads, steps, counts = script
    found = in_chunks(lambda *chunk: decode_ctc(heads, *chunk), steps, counts, places)  # type: ignore[arg-type]
    for got, row, count in zip(found, steps, counts, strict=True):
        expected = heads.textbook_ctc(row[:count].tolist())
        assert [(token.id, token.step) for token in got] == [(token.id, token.step) for token in expected]
        assert all(1 <= mine.duration <= whole.duration for mine, whole in zip(got, expected, strict=True))
        assert all(mine.confidence >= whole.confidence - 1e-5 for mine, whole in zip(got, expected, strict=True))


appended = st.lists(st.tuples(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 10**6)), max_size=9)


@given(appended=appended, begin=st.integers(0, 3), count=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_token_buffers_equal_lists(appended: list[tuple[list[bool], int]], begin: int, count: int) -> None:
    tokens = TokenBuffer.allocate(3, 9, torch.device("cpu"))
    plain: list[list[EmittedToken]] = [[], [], []]
    for mask, number in appended:
        whole = torch.tensor([number, number + 1, number + 2])
        real = (whole % 1024) / 1024
        tokens.append(torch.tensor(mask), whole, whole + 1, whole + 2, -real, real)
        for row, (is_one, value) in enumerate(zip(mask, whole.tolist(), strict=True)):
            share = value % 1024 / 1024
            if is_one:
                plain[row].append(EmittedToken(value, value + 1, value + 2, -share, share))
    assert list(tokens) == plain
    assert [tokens.row(row) for row in range(len(tokens))] == plain
    assert list(tokens.rows(begin, begin + count)) == plain[begin : begin + count]


def rows_of(state: TransducerState) -> list[tuple[Any, ...]]:
    """The state of each row as numbers."""
    parts = (state.hidden[0, :, 0], state.cell[0, :, 0], state.predicted, state.ahead, state.decoded)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@given(script=transducers, rows=st.lists(st.integers(0, 2), min_size=1, max_size=5), fresh=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_rows_of_a_state_are_gathered_scattered_and_reset(
    script: tuple[Scripted, Tensor, Tensor], rows: list[int], fresh: int
) -> None:
    heads, steps, _ = script
    steps = steps[:1].repeat(3, 1, 1)
    _, state = decode_transducer(heads, steps, torch.tensor([0, steps.shape[1] // 2, steps.shape[1]]))  # type: ignore[arg-type]
    before = rows_of(state)
    assert rows_of(state.gather(torch.tensor(rows))) == [before[row] for row in rows]
    start = TransducerState.start(heads, 1)  # type: ignore[arg-type]
    (new,) = rows_of(start)
    assert rows_of(start.repeat(2)) == [new, new]
    mask = [bool(fresh >> row & 1) for row in range(3)]
    assert rows_of(state.reset_where(torch.tensor(mask), start)) == [
        new if is_fresh else old for is_fresh, old in zip(mask, before, strict=True)
    ]
    assert rows_of(state) == before
    other = state.gather(torch.tensor([2, 0, 1]))
    other.scatter(torch.tensor([1]), start)
    assert rows_of(other) == [before[2], new, before[1]]


@given(
    step=st.integers(0, 10**6),
    duration=st.integers(0, 100),
    origin=st.floats(0, 10**5),
    room=st.floats(0, 100),
)
def test_times_of_a_token_are_those_of_its_steps_within_limits(
    step: int, duration: int, origin: float, room: float
) -> None:
    emitted, end = EmittedToken(1, step, duration, -0.1, 0.9), origin + room
    token = emitted.to_token(origin, end)
    assert token.start <= token.end <= round(end, 3)
    assert token.start == pytest.approx(min(origin + 0.08 * step, end), abs=6e-4)
    assert token.end == pytest.approx(min(origin + 0.08 * (step + duration), end), abs=6e-4)
    assert emitted.to_token().start == pytest.approx(0.08 * step, abs=6e-4)
