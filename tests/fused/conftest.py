"""Kernels run where they are tested: on the card, or interpreted."""

from __future__ import annotations

import pytest

from tests.fused.devices import DEVICE


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
