"""Best token, log-probability and confidence of the kernel equal those of the full logits."""

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
def test_kernel_matches_reference(
    monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int, width: int, programs: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(token_scores_kernel, "PROGRAMS", programs)
    args = inputs(rows, tokens, width, dtype)
    got, expected = (best_tokens(*args, ALPHA, kernels=kernels) for kernels in (True, False))
    assert torch.equal(got[0], expected[0])
    for actual, want in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(actual, want, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("setting", "precision"), [("highest", "ieee"), ("high", "tf32")])
def test_products_follow_the_matmul_precision_of_torch(setting: str, precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        assert token_scores_kernel.meta(1, 640)["PRECISION"] == precision
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kernels", [False, True])
def test_confidence_equals_that_of_the_decoders(kernels: bool) -> None:
    hidden, weight, bias = inputs(3, 200, 32, torch.float32)
    log_probabilities = (hidden @ weight.T + bias).log_softmax(-1)
    got = best_tokens(hidden, weight, bias, ALPHA, kernels=kernels)[2]
    torch.testing.assert_close(got, confidence(log_probabilities), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("equal_tokens", [(3, 5), (5, 130), (140, 299)])
def test_first_of_equal_tokens_wins(equal_tokens: tuple[int, int], kernels: bool) -> None:
    """Within a tile, and in the shares of two programs."""
    hidden, weight, bias = inputs(4, 300, 32, torch.float32)
    for token in equal_tokens:
        weight[token], bias[token] = weight[equal_tokens[0]], 50.0
    ids, _, _ = best_tokens(hidden, weight, bias, ALPHA, kernels=kernels)
    assert ids.tolist() == [equal_tokens[0]] * 4


def test_device_selects_kernels_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_scores_kernel, "launch", lambda *args: args)
    args = inputs(1, 20, 16, torch.float32)
    assert best_tokens(*args, ALPHA) == (*args, ALPHA)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # raised by NumPy in the interpreter
def test_a_row_of_nan_gets_a_valid_token() -> None:
    hidden, weight, bias = inputs(2, 50, 16, torch.float32)
    hidden[0] = torch.nan
    ids, _, _ = best_tokens(hidden, weight, bias, ALPHA)
    assert 0 <= int(ids[0]) < 50
    assert int(ids[1]) == int(best_tokens(hidden, weight, bias, ALPHA, kernels=False)[0][1])


def test_unsupported_memory_layout_is_rejected() -> None:
    hidden, weight, bias = inputs(2, 50, 16, torch.float32)
    with pytest.raises(ValueError, match="must be contiguous"):
        best_tokens(hidden, weight.T.contiguous().T, bias, ALPHA)
