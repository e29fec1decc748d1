"""Kernels run where they are tested: on the card, or interpreted."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fused.devices import DEVICE  # noqa: PLC0415  it loads torch

    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
