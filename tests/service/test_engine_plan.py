"""What a server is made of, by its settings and by the machine."""

from __future__ import annotations

import sys

import pytest

from conure.service import engine_plan as planning
from conure.service.engine_plan import plan_of, processes_of
from conure.settings import Settings


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sixteen processors and no card."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(planning, "processors", lambda: 16)
    monkeypatch.setattr(planning, "card_in_sight", lambda: False)
    return monkeypatch


def test_doors_have_the_cores_where_a_card_computes(machine: pytest.MonkeyPatch) -> None:
    assert processes_of(Settings()) == 2
    assert processes_of(Settings(device="cuda:1")) == 8
    machine.setattr(planning, "card_in_sight", lambda: True)
    assert processes_of(Settings()) == 8
    assert processes_of(Settings(device="cpu")) == 2
    assert processes_of(Settings(runner="onnx-int8")) == 2


def test_there_is_always_one_and_elsewhere_no_more(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(planning, "processors", lambda: 1)
    assert processes_of(Settings()) == 1
    machine.setattr(planning, "processors", lambda: 64)
    machine.setattr(sys, "platform", "darwin")
    assert processes_of(Settings()) == 1


def test_who_is_asked_for_a_number_has_it(machine: pytest.MonkeyPatch) -> None:
    assert processes_of(Settings(processes=5)) == 5


def test_tiny_stands_for_both() -> None:
    plan = plan_of(Settings(model="tiny", live="tiny", clips=""))
    assert (plan.live, plan.clips) == (("tiny-live",), ("tiny",))
