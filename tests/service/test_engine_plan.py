"""The engine's plan and the number of server processes, by settings and machine."""

from __future__ import annotations

import sys

import pytest

from conure.service import engine_plan
from conure.service.engine_plan import plan_from_settings, server_process_count
from conure.settings import Settings


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sixteen processors and no card."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(engine_plan, "processor_count", lambda: 16)
    monkeypatch.setattr(engine_plan, "has_gpu_driver", lambda: False)
    return monkeypatch


def test_with_a_gpu_the_processors_serve_connections(machine: pytest.MonkeyPatch) -> None:
    assert server_process_count(Settings()) == 2
    assert server_process_count(Settings(device="cuda:1")) == 8
    machine.setattr(engine_plan, "has_gpu_driver", lambda: True)
    assert server_process_count(Settings()) == 8
    assert server_process_count(Settings(device="cpu")) == 2
    assert server_process_count(Settings(runner="onnx-int8")) == 2


def test_at_least_one_process_and_only_one_without_linux(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(engine_plan, "processor_count", lambda: 1)
    assert server_process_count(Settings()) == 1
    machine.setattr(engine_plan, "processor_count", lambda: 64)
    machine.setattr(sys, "platform", "darwin")
    assert server_process_count(Settings()) == 1


def test_the_setting_overrides_the_default(machine: pytest.MonkeyPatch) -> None:
    assert server_process_count(Settings(processes=5)) == 5


def test_tiny_stands_for_both() -> None:
    plan = plan_from_settings(Settings(model="tiny", live_models="tiny", file_models=""))
    assert (plan.live_models, plan.clip_models) == (("tiny-live",), ("tiny",))
