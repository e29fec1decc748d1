"""The GPU benchmark with a small model on the CPU. The speed itself is not tested."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu.__main__ import _sections
from bench.gpu.edit_distance import edit_distance
from bench.gpu.networks import Networks
from bench.gpu.streams import numbers_of
from bench.operations import encoder_step, stream_step
from bench.random_model import LIVE_PAST, random_live_checkpoint
from conure.engine.backends.cuda.stream_step import INPUT_FIELDS
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
SMALL = ("--device", "cpu", "--layers", "1", "--width", "64")


def test_every_section_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Before\n\n<!-- card -->\nold\n<!-- end of card -->\n\nafter\n", encoding="utf-8")
    line = [sys.executable, "-m", "bench.gpu", *SMALL, "--report", str(page)]
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}  # compiling takes a while
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "failed" not in done.stdout + done.stderr
    names = [section.name for section in _sections(Networks(torch.device("cpu"), 1, 64))]
    assert re.findall(r"^(\w+): \d+ s$", done.stdout, re.MULTILINE) == names
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n\n<!-- card -->\nCPU, torch ")
    assert text.endswith("<!-- end of card -->\n\nafter\n")
    assert text.count("\n**") == len(names)


def test_a_section_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "bench.gpu", *SMALL[:-1], "60", "--only", "held", "ceilings"]  # no heads of 60 / 8
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "**held** failed in part." in done.stdout
    assert "bfloat16 operations per second" in done.stdout


@pytest.mark.parametrize(
    ("found", "expected", "count"),
    [([], [], 0), ([1, 2, 3], [1, 3], 1), ([7, 1, 2, 3], [1, 2, 3], 1), ([1, 5, 3], [1, 2, 3], 1), ([], [4, 4], 2)],
)
def test_edit_distance(found: list[int], expected: list[int], count: int) -> None:
    assert edit_distance([found, [9]], [expected, [9]]) == count
    assert edit_distance([expected], [found]) == count


def test_numbers_of_a_row_are_in_the_order_of_the_input_fields() -> None:
    row = numbers_of(steps=3, slot=5)
    assert len(row) == len(INPUT_FIELDS)
    assert (row[INPUT_FIELDS.index("slot")], row[INPUT_FIELDS.index("steps")], sum(row)) == (5, 3, 8)


def test_a_stream_step_contains_an_encoder_step() -> None:
    config = random_live_checkpoint(1, 64).config
    whole, layers = stream_step(config, 4, 2, LIVE_PAST), encoder_step(config.encoder, 4, 2, LIVE_PAST)
    assert {name: whole[name] for name in ("products", "attention", "memory in rings")} == {
        name: work for name, work in layers.items() if name != "memory copied"
    }
    assert all(work.seconds > 0 for work in whole.values())
