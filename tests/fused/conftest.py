"""Kernels run on the GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fused.devices import DEVICE  # noqa: PLC0415  it loads torch

    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
