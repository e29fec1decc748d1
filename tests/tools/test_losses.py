"""The transducer loss against a plain Python dynamic programme over every path, and its gradient."""

import math

import pytest
import torch

from tools.train.losses import DURATIONS, ctc_loss, frame_loss, rnnt_loss, tdt_loss


def every_path(logits: torch.Tensor, labels: list[int], sigma: float) -> float:
    """Log likelihood of one row by following every path; logits [T, U+1, V+1+D]."""
    steps = logits.shape[0]
    tokens = logits[..., : -len(DURATIONS)].log_softmax(-1) - sigma
    durations = logits[..., -len(DURATIONS) :].log_softmax(-1)

    def follow(t: int, u: int) -> float:
        """Sum of the probabilities of all ways from node (t, u) to the end."""
        if t >= steps:
            return 0.0
        total = 0.0
        for d in DURATIONS:
            weight = float(durations[t, u, d])
            if d > 0:
                blank = math.exp(float(tokens[t, u, -1]) + weight)
                ends = t + d == steps and u == len(labels)
                total += blank * (1.0 if ends else follow(t + d, u))
            if u < len(labels):
                total += math.exp(float(tokens[t, u, labels[u]]) + weight) * follow(t + d, u + 1)
        return total

    return math.log(follow(0, 0))


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_tdt_loss_equals_the_sum_over_every_path(sigma: float) -> None:
    torch.manual_seed(0)
    steps, lengths = torch.tensor([5, 3, 4, 1]), torch.tensor([3, 2, 0, 1])
    labels = torch.randint(0, 4, (4, 3))
    logits = torch.randn(4, 5, 4, 5 + len(DURATIONS), dtype=torch.float64) * 2
    losses = tdt_loss(logits, labels, steps, lengths, sigma)
    for row in range(4):
        t, u = int(steps[row]), int(lengths[row])
        expected = -every_path(logits[row, :t, : u + 1], labels[row, :u].tolist(), sigma)
        assert float(losses[row]) == pytest.approx(expected, abs=1e-5)


def every_rnnt_path(logits: torch.Tensor, labels: list[int]) -> float:
    """Log likelihood of one row by following every path; logits [T, U+1, V+1]."""
    tokens = logits.log_softmax(-1).exp()

    def follow(t: int, u: int) -> float:
        if t == logits.shape[0]:
            return float(u == len(labels))
        total = float(tokens[t, u, -1]) * follow(t + 1, u)
        if u < len(labels):
            total += float(tokens[t, u, labels[u]]) * follow(t, u + 1)
        return total

    return math.log(follow(0, 0))


def test_rnnt_loss_equals_the_sum_over_every_path() -> None:
    torch.manual_seed(0)
    steps, lengths = torch.tensor([5, 3, 4, 1]), torch.tensor([3, 2, 0, 1])
    labels = torch.randint(0, 4, (4, 3))
    logits = torch.randn(4, 5, 4, 5, dtype=torch.float64) * 2
    losses = rnnt_loss(logits, labels, steps, lengths)
    for row in range(4):
        t, u = int(steps[row]), int(lengths[row])
        expected = -every_rnnt_path(logits[row, :t, : u + 1], labels[row, :u].tolist())
        assert float(losses[row]) == pytest.approx(expected, abs=1e-5)


def test_rnnt_loss_gradient() -> None:
    torch.manual_seed(2)
    logits = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    labels, steps, lengths = torch.tensor([[0, 2], [1, 0]]), torch.tensor([4, 3]), torch.tensor([2, 1])
    assert torch.autograd.gradcheck(lambda x: rnnt_loss(x, labels, steps, lengths), (logits,))


def test_tdt_loss_in_single_precision_stays_close_on_long_rows() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 80, 41, 105) * 3, torch.randint(0, 99, (2, 40))
    steps, lengths = torch.tensor([80, 61]), torch.tensor([40, 12])
    single = tdt_loss(logits, labels, steps, lengths)
    double = tdt_loss(logits.double(), labels, steps, lengths)
    assert torch.allclose(single.double(), double, rtol=1e-5)


def test_tdt_loss_gradient() -> None:
    torch.manual_seed(2)
    logits = torch.randn(2, 4, 3, 4 + len(DURATIONS), dtype=torch.float64, requires_grad=True)
    labels, steps, lengths = torch.tensor([[0, 2], [1, 0]]), torch.tensor([4, 3]), torch.tensor([2, 1])
    assert torch.autograd.gradcheck(lambda x: tdt_loss(x, labels, steps, lengths, 0.02), (logits,))


def test_padding_does_not_change_loss_or_gradient() -> None:
    torch.manual_seed(3)
    padded = torch.randn(1, 9, 6, 12, requires_grad=True)
    labels = torch.tensor([[1, 2, 3, 0, 0]])
    steps, lengths = torch.tensor([6]), torch.tensor([3])
    long = tdt_loss(padded, labels, steps, lengths)
    short = tdt_loss(padded[:, :6, :4], labels[:, :3], steps, lengths)
    assert long.item() == pytest.approx(short.item(), abs=1e-4)
    long.sum().backward()
    assert padded.grad is not None
    assert bool(padded.grad.isfinite().all())
    assert float(padded.grad[:, 6:].abs().max()) == 0.0


def test_ctc_and_frame_losses_are_finite() -> None:
    torch.manual_seed(4)
    logits = torch.randn(2, 6, 5)
    losses = ctc_loss(logits, torch.tensor([[1, 2], [3, 3]]), torch.tensor([6, 2]), torch.tensor([2, 2]))
    assert losses.shape == (2,)
    assert bool(losses.isfinite().all())
    assert float(losses[1]) == 0.0  # "3 3" needs three steps
    assert float(frame_loss(logits, torch.tensor([[1, 1, 4, 4, -100, -100]] * 2))) > 0
