"""Kernels compile for an H200, where or not there is one, and fit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED, REGISTERS = 227 * 1024, 65_536
"""What a multiprocessor has, in bytes for one program and in registers for all."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    own = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | own
    command = [sys.executable, "-m", "tests.fused.compiling"]
    root = Path(__file__).parents[2]
    said = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, dict[str, int]] = json.loads(said)
    return found


def test_kernels_keep_what_they_work_on_in_registers(compiled: dict[str, dict[str, int]]) -> None:
    assert {name: takes["spilled"] for name, takes in compiled.items() if takes["spilled"]} == {}


def test_two_programs_of_each_fit_a_multiprocessor(compiled: dict[str, dict[str, int]]) -> None:
    assert all(2 * takes["shared"] <= SHARED for takes in compiled.values())
    assert all(2 * takes["registers"] * takes["threads"] <= REGISTERS for takes in compiled.values())


def test_memory_is_read_in_wide_pieces_and_products_are_the_tensor_cores(
    compiled: dict[str, dict[str, int]],
) -> None:
    narrow = {"token scores' shares", "label step"}  # they read a few numbers a row
    assert all(takes["wide loads"] for name, takes in compiled.items() if name not in narrow)
    products = {name for name in compiled if "attention" in name or name.startswith("token scores of")}
    assert {name for name, takes in compiled.items() if takes["tensor cores"]} == products - {"clip attention's biases"}
