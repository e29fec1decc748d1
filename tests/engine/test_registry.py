"""Selection of the runner for a checkpoint, and its reason."""

from __future__ import annotations

import pytest
import torch

from conure.engine.backends import registry
from conure.engine.backends.device import CPU
from conure.engine.backends.registry import SMALL_MODEL_BYTES, choose_runner
from conure.types import RunnerChoice

BIG = 2_400_000_000


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("requested", ["torch", "onnx-int8", "onnx-fp32"])
def test_a_requested_runner_is_used(requested: RunnerChoice, saturates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "adds_in_16_bits", lambda: saturates)
    assert choose_runner(requested, CPU, BIG) == (requested, "requested")


@pytest.mark.parametrize(("saturates", "chosen"), [(False, "onnx-int8"), (True, "onnx-fp32")])
def test_large_models_use_int8_if_it_is_accurate(saturates: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "adds_in_16_bits", lambda: saturates)
    name, reason = choose_runner("auto", CPU, BIG)
    assert name == chosen
    assert ("VNNI" in reason) is saturates


def test_small_models_and_gpus_do_not_test_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "adds_in_16_bits", lambda: pytest.fail("the processor was tested"))
    assert choose_runner("auto", CPU, SMALL_MODEL_BYTES - 1)[0] == "onnx-fp32"
    assert choose_runner("auto", torch.device("cuda"), BIG)[0] == "torch"
