"""Which runner a checkpoint gets, and why."""

from __future__ import annotations

import pytest
import torch

from conure.engine.backends import registry as opening
from conure.engine.backends.device import CPU
from conure.engine.backends.registry import SMALL_BYTES, choose_runner
from conure.types import RunnerChoice

BIG = 2_400_000_000


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("asked", ["torch", "onnx-int8", "onnx-fp32"])
def test_what_is_asked_for_is_taken(asked: RunnerChoice, rough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "adds_in_16_bits", lambda: rough)
    assert choose_runner(asked, CPU, BIG) == (asked, "asked for")


@pytest.mark.parametrize(("rough", "chosen"), [(False, "onnx-int8"), (True, "onnx-fp32")])
def test_a_large_model_gets_int8_where_that_is_exact_enough(
    rough: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "adds_in_16_bits", lambda: rough)
    name, reason = choose_runner("auto", CPU, BIG)
    assert name == chosen
    assert ("VNNI" in reason) is rough


def test_small_models_and_cards_need_no_look_at_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "adds_in_16_bits", lambda: pytest.fail("it was asked"))
    assert choose_runner("auto", CPU, SMALL_BYTES - 1)[0] == "onnx-fp32"
    assert choose_runner("auto", torch.device("cuda"), BIG)[0] == "torch"
