"""Decoders: results do not depend on window, batch and chunks, and equal those of the textbook loop."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from conure.decoding.confidence import confidence
from conure.decoding.ctc import decode_ctc
from conure.decoding.emitted_token import EmittedToken
from conure.decoding.label_looping import LabelLooping
from conure.decoding.transducer import TransducerState, decode_transducer
from conure.fused.available import has_fused_kernels
from conure.models.network import Heads
from tests.models.networks import OFFLINE, network

COUNTS = torch.tensor([40, 23, 1, 0])


def heads(durations: tuple[int, ...], blank_bias: float = 0.0, seed: int = 0) -> Heads:
    net = network(
        OFFLINE,
        seed,
        predictor_width=16,
        predictor_layers=2,
        joint_width=16,
        durations=durations,
        ctc=True,
        max_symbols=3,
    )
    with torch.no_grad():
        net.joint.enc.weight.mul_(4)
        net.joint.head.weight.mul_(6)
        net.joint.head.bias[net.config.blank] += blank_bias
        net.ctc_head.weight.mul_(6)
    return net


def encoded(seed: int = 5) -> torch.Tensor:
    return torch.randn(4, 40, 32, generator=torch.Generator().manual_seed(seed))


def textbook_greedy(net: Heads, steps: torch.Tensor) -> list[tuple[int, int, int]]:
    """The textbook loop for one row: (token, step, jump)."""
    outputs, state = net.predictor(torch.tensor([[net.config.blank]]))
    time, at_step, out = 0, 0, []
    size = net.config.vocabulary + 1
    while time < len(steps):
        logits = net.joint.combine(net.joint.enc(steps[time]), net.joint.pred(outputs[0, 0]))
        token = int(logits[:size].argmax())
        blank = token == net.config.blank
        jump = net.config.durations[int(logits[size:].argmax())] if net.config.durations else int(blank)
        if blank:
            time, at_step = time + max(jump, 1), 0
            continue
        out.append((token, time, jump if net.config.durations else 1))
        outputs, state = net.predictor(torch.tensor([[token]]), state)
        at_step = at_step + 1 if jump == 0 else 0
        if at_step >= net.config.max_symbols:
            jump, at_step = 1, 0
        time += jump
    return out


def summary(tokens: list[EmittedToken]) -> list[tuple[int, int, int]]:
    return [(token.id, token.step, token.duration) for token in tokens]


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@pytest.mark.parametrize("window", [1, 2, 4, 9])
@torch.inference_mode()
def test_batched_windows_equal_the_textbook_loop(durations: tuple[int, ...], window: int) -> None:
    emitted = 0
    for seed, bias in ((0, 1.0), (1, 2.0), (2, 3.0)):
        net, steps = heads(durations, bias, seed), encoded(seed)
        tokens, _ = decode_transducer(net, steps, COUNTS, window=window)
        for row, count in enumerate(COUNTS.tolist()):
            assert summary(tokens.row(row)) == textbook_greedy(net, steps[row, :count])
        emitted += int(tokens.counts.sum())
    assert emitted > 50


@torch.inference_mode()
def test_a_network_without_blanks_is_advanced_at_the_limit() -> None:
    net = heads((), blank_bias=-1e4)
    tokens, _ = decode_transducer(net, encoded(), COUNTS)
    assert tokens.counts.tolist() == [count * net.config.max_symbols for count in COUNTS.tolist()]
    assert [token.step for token in tokens.row(1)] == [step for step in range(23) for _ in range(3)]


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@pytest.mark.parametrize("chunk", [1, 2, 7])
@torch.inference_mode()
def test_transducer_resumes_from_its_state(durations: tuple[int, ...], chunk: int) -> None:
    net, steps = heads(durations, 2.0), encoded()
    whole, _ = decode_transducer(net, steps, COUNTS)
    state, parts = None, [[] for _ in COUNTS]
    for start in range(0, 40, chunk):
        part = steps[:, start : start + chunk]
        tokens, state = decode_transducer(net, part, (COUNTS - start).clamp(0, part.shape[1]), state)
        for row, emitted in enumerate(tokens):
            parts[row] += emitted
    assert [summary(part) for part in parts] == [summary(row) for row in whole]


@torch.inference_mode()
def test_ctc_merges_repeats_and_drops_blanks() -> None:
    net, steps = heads(()), encoded()
    tokens, _ = decode_ctc(net, steps, COUNTS)
    best = net.ctc_head(steps).argmax(-1)
    for row, count in enumerate(COUNTS.tolist()):
        runs, last = [], net.config.blank
        for step, label in enumerate(best[row, :count].tolist()):
            if label not in (last, net.config.blank):
                runs.append([label, step, 0])
            if label != net.config.blank:
                runs[-1][2] += 1
            last = label
        assert summary(tokens.row(row)) == [tuple(run) for run in runs]
    assert tokens.counts[0] > 5


@pytest.mark.parametrize("chunk", [1, 3, 7])
@torch.inference_mode()
def test_ctc_resumes_from_its_state(chunk: int) -> None:
    net, steps = heads(()), encoded()
    whole, _ = decode_ctc(net, steps, COUNTS)
    state, parts = None, [[] for _ in COUNTS]
    for start in range(0, 40, chunk):
        part = steps[:, start : start + chunk]
        tokens, state = decode_ctc(net, part, (COUNTS - start).clamp(0, part.shape[1]), state)
        for row, emitted in enumerate(tokens):
            parts[row] += emitted
    found = [[(token.id, token.step) for token in part] for part in parts]
    assert found == [[(token.id, token.step) for token in row] for row in whole]


def test_confidence_is_one_if_certain_and_zero_if_uniform() -> None:
    sure = torch.full((50,), -100.0)
    sure[3] = 0.0
    flat = torch.full((50,), -math.log(50))
    assert confidence(sure).item() == pytest.approx(1.0, abs=1e-4)
    assert confidence(flat).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@pytest.mark.parametrize(("times", "window"), [(1, 1), (5, 4), (300, 2)])
@torch.inference_mode()
def test_label_looping_equals_the_reference(durations: tuple[int, ...], times: int, window: int) -> None:
    net, steps = heads(durations, 2.0), encoded()
    expected, _ = decode_transducer(net, steps, COUNTS)
    for got, row in zip(decode_in_loop(net, steps, COUNTS, times, window), expected, strict=True):
        assert_same(got, row)


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@pytest.mark.parametrize("window", [1, 4])
@torch.inference_mode()
def test_kernels_decode_to_the_same_tokens(
    durations: tuple[int, ...], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, steps, counts = heads(durations, 2.0), encoded()[:, 8:14], torch.tensor([6, 4, 1, 0])
    expected, before = decode_transducer(net, steps, counts)
    assert int(expected.counts.sum()) > 4
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert has_fused_kernels(net.device)
    tokens, state = decode_transducer(net, steps, counts, window=window)
    for found in (tokens, decode_in_loop(net, steps, counts, 2, window)):
        for got, row in zip(found, expected, strict=True):
            assert_same(got, row)
    for part in fields(state):
        torch.testing.assert_close(getattr(state, part.name), getattr(before, part.name))


def decode_in_loop(
    net: Heads, steps: torch.Tensor, counts: torch.Tensor, times: int, window: int
) -> list[list[EmittedToken]]:
    """Decodes with `LabelLooping` in chunks of 9 steps, with a surplus iteration in each."""
    loop, state = LabelLooping(net, len(counts), 9, times, window), TransducerState.start(net, len(counts))
    parts: list[list[EmittedToken]] = [[] for _ in counts]
    for start in range(0, steps.shape[1], 9):
        part = steps[:, start : start + 9]
        loop.begin(part, (counts - start).clamp(0, part.shape[1]), state)
        while loop.unfinished:
            loop.advance()
        loop.advance()
        state = loop.state()
        for row, emitted in enumerate(loop.tokens):
            parts[row] += emitted
    return parts


def assert_same(got: list[EmittedToken], expected: list[EmittedToken]) -> None:
    assert summary(got) == summary(expected)
    for mine, other in zip(got, expected, strict=True):
        assert mine.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-4)


@torch.inference_mode()
def test_decoding_does_not_change_the_state_before_a_chunk() -> None:
    net, steps = heads((), 2.0), encoded()
    _, state = decode_transducer(net, steps[:, :9], COUNTS.clamp(max=9))
    before = state.repeat(1)
    decode_transducer(net, steps[:, 9:], (COUNTS - 9).clamp(min=0), state)
    for part in fields(state):
        assert torch.equal(getattr(state, part.name), getattr(before, part.name))
