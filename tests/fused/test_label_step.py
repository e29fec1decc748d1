"""The kernel finds, writes and moves what its plain twin does; the decoders' tests say that this is right."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from conure.fused.label_step import Rules, Scored, TokenColumns, append_tokens, label_step
from tests.fused.devices import DEVICE, whole

BLANK, ROWS, ROOM = 7, 40, 45
RNNT = Rules(BLANK, (), 3)
TDT = Rules(BLANK, (0, 1, 2, 3, 4), 3)
GAPS = Rules(BLANK, (0, 2, 8), 2)
RULES = {"rnnt": RNNT, "tdt": TDT, "tdt with gaps": GAPS}


@dataclass(frozen=True)
class Place:
    counts: Tensor
    decoded: Tensor
    time: Tensor
    repeats: Tensor
    written: TokenColumns

    def copy(self) -> Place:
        return Place(*(part.clone() for part in vars(self).values() if isinstance(part, Tensor)), self.copied())

    def copied(self) -> TokenColumns:
        ids, steps, durations, log_probabilities, confidences, counts = (part.clone() for part in self.written)
        return ids, steps, durations, log_probabilities, confidences, counts

    def step(self, scored: Scored, rules: Rules, *, kernels: bool) -> tuple[Tensor, Tensor]:
        given = self.counts, self.decoded, self.time, self.repeats, self.written, rules
        return label_step(scored, *given, kernels=kernels)


def draw(least: int, most: int, *shape: int) -> Tensor:
    return torch.randint(least, most + 1, shape, device=DEVICE)


def scores(window: int, rules: Rules, blanks: float) -> Scored:
    """Half of the durations are 0."""
    ids = draw(0, BLANK - 1, ROWS, window).masked_fill(torch.rand(ROWS, window, device=DEVICE) < blanks, BLANK)
    last = len(rules.durations) - 1
    duration = draw(0, last, ROWS, window) * draw(0, 1, ROWS, window) if rules.durations else None
    return ids, duration, *torch.randn(2, ROWS, window, device=DEVICE)


def beginning(rules: Rules) -> Place:
    """Rows of no steps, of a few, and some that a jump of the chunk before carries into this one or past its end."""
    counts, ahead = draw(0, 15, ROWS), draw(0, 3, ROWS) * draw(0, 1, ROWS) * (len(rules.durations) > 0)
    whole_columns = (torch.zeros(ROWS, ROOM + 1, dtype=torch.long, device=DEVICE) for _ in range(3))
    real_columns = (torch.zeros(ROWS, ROOM + 1, device=DEVICE) for _ in range(2))
    written = *whole_columns, *real_columns, torch.zeros_like(counts)
    return Place(counts, draw(0, 10**12, ROWS), ahead, torch.zeros_like(counts), written)


def assert_same(mine: Place, other: Place) -> None:
    assert torch.equal(mine.time, other.time)
    assert torch.equal(mine.repeats, other.repeats)
    assert torch.equal(mine.written[-1], other.written[-1])
    for got, expected in zip(mine.written[:-1], other.written[:-1], strict=True):
        assert torch.equal(got[:, :ROOM], expected[:, :ROOM])


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("blanks", [0.1, 0.6])
def test_the_kernel_does_what_its_twin_does(rules: Rules, window: int, blanks: float) -> None:
    torch.manual_seed(window)
    plain = beginning(rules)
    fused = plain.copy()
    moved_on = 0
    for _ in range(15):
        scored = scores(window, rules, blanks)
        before = plain.repeats.clone()
        (emits, said), expected = fused.step(scored, rules, kernels=True), plain.step(scored, rules, kernels=False)
        assert torch.equal(emits, expected[0])
        assert torch.equal(said[emits], expected[1][emits])
        assert_same(fused, plain)
        moved_on += int((emits & (before == rules.max_symbols - 1) & (plain.repeats == 0)).sum())
    assert (plain.time >= plain.counts).any()
    assert int(plain.written[-1].sum()) > 50
    assert moved_on > 0


@pytest.mark.parametrize("kernels", [False, True])
def test_rows_that_are_done_stay_as_they_are(kernels: bool) -> None:
    torch.manual_seed(0)
    place = beginning(TDT)
    place.time.copy_(place.counts + draw(0, 3, ROWS))
    before = place.copy()
    emits, _ = place.step(scores(4, TDT, 0.0), TDT, kernels=kernels)
    assert not emits.any()
    assert_same(place, before)


@pytest.mark.parametrize("kernels", [False, True])
def test_blanks_are_walked_over_and_a_jump_may_go_past_the_end(kernels: bool) -> None:
    """Two blanks, the first of which lasts 0 and moves all the same; then a token of 4 steps in a chunk of 5."""
    place = beginning(TDT)
    for part, number in ((place.counts, 5), (place.decoded, 100), (place.time, 0), (place.repeats, 2)):
        part.fill_(number)
    ids = whole(BLANK, BLANK, 9, 3).expand(ROWS, 4).contiguous()
    duration = whole(0, 2, 0, 4).expand(ROWS, 4).contiguous()
    sure = torch.arange(4.0, device=DEVICE).expand(ROWS, 4).contiguous()
    emits, said = place.step((ids, duration, -sure, sure), TDT, kernels=kernels)
    assert emits.all()
    assert said.eq(3).all()
    assert [column[0, 0].item() for column in place.written[:-1]] == [3, 103, 4, -3.0, 3.0]
    assert place.written[-1].eq(1).all()
    assert place.time.eq(7).all()
    assert place.repeats.eq(0).all()


def test_a_token_is_appended_where_the_mask_says() -> None:
    written = beginning(RNNT).written
    mask = draw(0, 1, ROWS).bool()
    numbers, reals = torch.full_like(written[-1], 5), torch.full((ROWS,), 0.5, device=DEVICE)
    for _ in range(2):
        append_tokens(written, mask, (numbers, numbers, numbers, reals, reals))
    assert torch.equal(written[-1], 2 * mask)
    for column in written[:-1]:
        assert torch.equal(column[:, :3] > 0, torch.stack([mask, mask, torch.zeros_like(mask)], 1))


def test_by_default_the_device_says_whether_kernels_run() -> None:
    torch.manual_seed(3)
    place, scored = beginning(TDT), scores(2, TDT, 0.5)
    places = [place.copy() for _ in range(2)]
    label_step(scored, *list(vars(places[0]).values()), TDT)
    places[1].step(scored, TDT, kernels=True)
    # The twin writes into the last column, where no token is.
    assert torch.equal(places[0].written[0], places[1].written[0])


def test_what_does_not_lie_as_the_kernel_reads_it_is_refused() -> None:
    ids, *others = scores(2, RNNT, 0.5)
    with pytest.raises(ValueError, match="must be contiguous"):
        beginning(RNNT).step((ids.T.contiguous().T, *others), RNNT, kernels=True)
