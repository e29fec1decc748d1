"""The device of the kernel tests, and the tolerances against the reference implementations."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TOLERANCES = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
# The interpreter has no bfloat16 products.
DTYPES = tuple(TOLERANCES) if DEVICE.type == "cuda" else (torch.float32, torch.float16)


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def integers(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, device=DEVICE)


def assert_near(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=TOLERANCES[got.dtype], rtol=TOLERANCES[got.dtype])
