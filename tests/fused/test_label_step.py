"""The label step kernel matches the reference; the decoders' tests check the reference."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from conure.fused.label_step import Rules, TokenColumns, WindowScores, append_tokens, label_step
from tests.fused.devices import DEVICE, integers

BLANK, ROWS, CAPACITY = 7, 40, 45
RNNT = Rules(BLANK, (), 3)
TDT = Rules(BLANK, (0, 1, 2, 3, 4), 3)
GAPS = Rules(BLANK, (0, 2, 8), 2)
RULES = {"rnnt": RNNT, "tdt": TDT, "tdt with gaps": GAPS}


@dataclass(frozen=True)
class DecoderRows:
    counts: Tensor
    decoded: Tensor
    time: Tensor
    repeats: Tensor
    written: TokenColumns

    def copy(self) -> DecoderRows:
        return DecoderRows(
            *(part.clone() for part in vars(self).values() if isinstance(part, Tensor)), self.copy_tokens()
        )

    def copy_tokens(self) -> TokenColumns:
        ids, steps, durations, log_probabilities, confidences, counts = (part.clone() for part in self.written)
        return ids, steps, durations, log_probabilities, confidences, counts

    def step(self, scored: WindowScores, rules: Rules, *, kernels: bool) -> tuple[Tensor, Tensor]:
        args = self.counts, self.decoded, self.time, self.repeats, self.written, rules
        return label_step(scored, *args, kernels=kernels)


def draw(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high + 1, shape, device=DEVICE)


def scores(window: int, rules: Rules, blanks: float) -> WindowScores:
    """Random scores; half of the durations are 0."""
    ids = draw(0, BLANK - 1, ROWS, window).masked_fill(torch.rand(ROWS, window, device=DEVICE) < blanks, BLANK)
    last = len(rules.durations) - 1
    duration = draw(0, last, ROWS, window) * draw(0, 1, ROWS, window) if rules.durations else None
    return ids, duration, *torch.randn(2, ROWS, window, device=DEVICE)


def initial_rows(rules: Rules) -> DecoderRows:
    """Rows with 0 to 15 steps; durations of the previous chunk reach into some of them or beyond their end."""
    counts, skipped = draw(0, 15, ROWS), draw(0, 3, ROWS) * draw(0, 1, ROWS) * (len(rules.durations) > 0)
    whole_columns = (torch.zeros(ROWS, CAPACITY + 1, dtype=torch.long, device=DEVICE) for _ in range(3))
    real_columns = (torch.zeros(ROWS, CAPACITY + 1, device=DEVICE) for _ in range(2))
    written = *whole_columns, *real_columns, torch.zeros_like(counts)
    return DecoderRows(counts, draw(0, 10**12, ROWS), skipped, torch.zeros_like(counts), written)


def assert_same(got_rows: DecoderRows, expected_rows: DecoderRows) -> None:
    assert torch.equal(got_rows.time, expected_rows.time)
    assert torch.equal(got_rows.repeats, expected_rows.repeats)
    assert torch.equal(got_rows.written[-1], expected_rows.written[-1])
    for got, expected in zip(got_rows.written[:-1], expected_rows.written[:-1], strict=True):
        assert torch.equal(got[:, :CAPACITY], expected[:, :CAPACITY])


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("blanks", [0.1, 0.6])
def test_kernel_matches_reference(rules: Rules, window: int, blanks: float) -> None:
    torch.manual_seed(window)
    reference = initial_rows(rules)
    fused = reference.copy()
    forced_advances = 0
    for _ in range(15):
        scored = scores(window, rules, blanks)
        before = reference.repeats.clone()
        (emits, tokens), expected = (
            fused.step(scored, rules, kernels=True),
            reference.step(scored, rules, kernels=False),
        )
        assert torch.equal(emits, expected[0])
        assert torch.equal(tokens[emits], expected[1][emits])
        assert_same(fused, reference)
        forced_advances += int((emits & (before == rules.max_symbols - 1) & (reference.repeats == 0)).sum())
    assert (reference.time >= reference.counts).any()
    assert int(reference.written[-1].sum()) > 50
    assert forced_advances > 0


@pytest.mark.parametrize("kernels", [False, True])
def test_finished_rows_do_not_change(kernels: bool) -> None:
    torch.manual_seed(0)
    place = initial_rows(TDT)
    place.time.copy_(place.counts + draw(0, 3, ROWS))
    before = place.copy()
    emits, _ = place.step(scores(4, TDT, 0.0), TDT, kernels=kernels)
    assert not emits.any()
    assert_same(place, before)


@pytest.mark.parametrize("kernels", [False, True])
def test_blanks_are_skipped_and_a_duration_may_end_beyond_the_chunk(kernels: bool) -> None:
    """Two blanks, the first with duration 0, which still advances; then a token of 4 steps in a chunk of 5."""
    place = initial_rows(TDT)
    for part, number in ((place.counts, 5), (place.decoded, 100), (place.time, 0), (place.repeats, 2)):
        part.fill_(number)
    ids = integers(BLANK, BLANK, 9, 3).expand(ROWS, 4).contiguous()
    duration = integers(0, 2, 0, 4).expand(ROWS, 4).contiguous()
    sure = torch.arange(4.0, device=DEVICE).expand(ROWS, 4).contiguous()
    emits, tokens = place.step((ids, duration, -sure, sure), TDT, kernels=kernels)
    assert emits.all()
    assert tokens.eq(3).all()
    assert [column[0, 0].item() for column in place.written[:-1]] == [3, 103, 4, -3.0, 3.0]
    assert place.written[-1].eq(1).all()
    assert place.time.eq(7).all()
    assert place.repeats.eq(0).all()


def test_tokens_are_appended_under_the_mask() -> None:
    written = initial_rows(RNNT).written
    mask = draw(0, 1, ROWS).bool()
    numbers, reals = torch.full_like(written[-1], 5), torch.full((ROWS,), 0.5, device=DEVICE)
    for _ in range(2):
        append_tokens(written, mask, (numbers, numbers, numbers, reals, reals))
    assert torch.equal(written[-1], 2 * mask)
    for column in written[:-1]:
        assert torch.equal(column[:, :3] > 0, torch.stack([mask, mask, torch.zeros_like(mask)], 1))


def test_device_selects_kernels_by_default() -> None:
    torch.manual_seed(3)
    place, scored = initial_rows(TDT), scores(2, TDT, 0.5)
    places = [place.copy() for _ in range(2)]
    label_step(scored, *list(vars(places[0]).values()), TDT)
    places[1].step(scored, TDT, kernels=True)
    # The reference writes to the scratch column, too.
    assert torch.equal(places[0].written[0], places[1].written[0])


def test_unsupported_memory_layout_is_rejected() -> None:
    ids, *others = scores(2, RNNT, 0.5)
    with pytest.raises(ValueError, match="must be contiguous"):
        initial_rows(RNNT).step((ids.T.contiguous().T, *others), RNNT, kernels=True)
