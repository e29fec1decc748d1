"""The best token, its probability and its confidence come out the same without logits in memory."""

from __future__ import annotations

import pytest
import torch

from conure.decoding.confidence import confidence
from conure.decoding.emitted_token import ALPHA
from conure.fused import token_scores_kernel
from conure.fused.token_scores import best_tokens
from tests.fused.devices import DTYPES, noise


def inputs(rows: int, tokens: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(tokens)
    return noise(rows, width, dtype=dtype), noise(tokens, width, dtype=dtype) * 0.3, noise(tokens, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("programs", [1, 3, 264])
@pytest.mark.parametrize(("rows", "tokens", "width"), [(1, 21, 20), (20, 1025, 64), (70, 300, 100)])
def test_the_kernel_gives_what_its_twin_gives(
    monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int, width: int, programs: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(token_scores_kernel, "PROGRAMS", programs)
    given = inputs(rows, tokens, width, dtype)
    got, expected = (best_tokens(*given, ALPHA, kernels=kernels) for kernels in (True, False))
    assert torch.equal(got[0], expected[0])
    for mine, theirs in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("told", "made"), [("highest", "ieee"), ("high", "tf32")])
def test_products_are_made_as_torch_is_told_to_make_its_own(told: str, made: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(told)
    try:
        assert token_scores_kernel.meta(1, 640)["PRECISION"] == made
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kernels", [False, True])
def test_it_is_the_confidence_of_the_decoders(kernels: bool) -> None:
    hidden, weight, bias = inputs(3, 200, 32, torch.float32)
    log_probabilities = (hidden @ weight.T + bias).log_softmax(-1)
    got = best_tokens(hidden, weight, bias, ALPHA, kernels=kernels)[2]
    torch.testing.assert_close(got, confidence(log_probabilities), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("alike", [(3, 5), (5, 130), (140, 299)])
def test_of_equal_tokens_the_first_is_taken(alike: tuple[int, int], kernels: bool) -> None:
    """In a tile, and in shares of two programs."""
    hidden, weight, bias = inputs(4, 300, 32, torch.float32)
    for token in alike:
        weight[token], bias[token] = weight[alike[0]], 50.0
    ids, _, _ = best_tokens(hidden, weight, bias, ALPHA, kernels=kernels)
    assert ids.tolist() == [alike[0]] * 4


def test_by_default_the_device_says_whether_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_scores_kernel, "launch", lambda *given: given)
    given = inputs(1, 20, 16, torch.float32)
    assert best_tokens(*given, ALPHA) == (*given, ALPHA)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, which interprets
def test_a_row_of_nan_gets_a_token_that_exists() -> None:
    hidden, weight, bias = inputs(2, 50, 16, torch.float32)
    hidden[0] = torch.nan
    ids, _, _ = best_tokens(hidden, weight, bias, ALPHA)
    assert 0 <= int(ids[0]) < 50
    assert int(ids[1]) == int(best_tokens(hidden, weight, bias, ALPHA, kernels=False)[0][1])


def test_what_does_not_lie_as_the_kernel_reads_it_is_refused() -> None:
    hidden, weight, bias = inputs(2, 50, 16, torch.float32)
    with pytest.raises(ValueError, match="must be contiguous"):
        best_tokens(hidden, weight.T.contiguous().T, bias, ALPHA)
