"""Kernels compile for an H200, with or without a GPU, and fit its resources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED, REGISTERS = 227 * 1024, 65_536
"""Resources of a multiprocessor: bytes of shared memory, and registers."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    overrides = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | overrides
    command = [sys.executable, "-m", "tests.fused.compiling"]
    root = Path(__file__).parents[2]
    output = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, dict[str, int]] = json.loads(output)
    return found


def test_kernels_do_not_spill_registers(compiled: dict[str, dict[str, int]]) -> None:
    assert {name: usage["spilled"] for name, usage in compiled.items() if usage["spilled"]} == {}


def test_two_programs_fit_into_a_multiprocessor(compiled: dict[str, dict[str, int]]) -> None:
    assert all(2 * usage["shared"] <= SHARED for usage in compiled.values())
    assert all(2 * usage["registers"] * usage["threads"] <= REGISTERS for usage in compiled.values())


def test_loads_are_wide_and_products_use_tensor_cores(
    compiled: dict[str, dict[str, int]],
) -> None:
    narrow = {"token scores' shares", "label step"}  # they read a few numbers per row
    assert all(usage["wide loads"] for name, usage in compiled.items() if name not in narrow)
    products = {name for name in compiled if "attention" in name or name.startswith("token scores of")}
    assert {name for name, usage in compiled.items() if usage["tensor cores"]} == products - {"clip attention's biases"}
