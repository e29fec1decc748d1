"""Without a GPU, Triton interprets the kernels. It decides so where they are defined, so they are imported here."""

from __future__ import annotations

import importlib

import pytest

from tests.fused.devices import DEVICE

KERNELS = (
    *("clip_attention", "filter_step", "joint_step", "label_step", "lstm_step"),
    *("ring_attention", "token_scores"),
)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


with pytest.MonkeyPatch.context() as patch:
    if DEVICE.type == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    for name in KERNELS:
        importlib.import_module(f"conure.fused.{name}_kernel")
