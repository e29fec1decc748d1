"""The fast tier needs no torch, no server and no other process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import ROOT, needs
from tests.waiting import PATIENCE

TESTS = ROOT / "tests"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text/test_words.py", set()),
        ("vad/test_segmentation.py", set()),
        ("decoding/test_decoding.py", {"torch"}),
        ("protocols/test_openai_rest.py", {"server", "process"}),
        ("cli/test_process.py", {"process"}),
        ("end_to_end/test_tiny.py", {"torch", "process"}),
    ],
)
def test_what_files_need(name: str, expected: set[str]) -> None:
    assert needs(TESTS / name) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from tests.parity import references", {"torch"}),
        ("from conure import engine, vad", set()),
        ("from conure.engine.backends.torch_eager import clip_runner", {"torch"}),
        ("import conure.bench.server", {"server"}),
        ("if TYPE_CHECKING:\n    import torch", set()),
        ("def later():\n    import torch", set()),
        ("try:\n    import torch\nexcept ImportError:\n    pass", {"torch"}),
    ],
)
def test_imports_are_followed_through_packages_and_helpers(line: str, expected: set[str], tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(line)
    assert needs(file) == expected


@pytest.mark.process
def test_the_fast_tier_is_collected_without_torch() -> None:
    """It cannot be imported there, see `conftest.py`: what is not told to need it and imports it is an error."""
    line = [sys.executable, "-m", "pytest", "-m", "fast", "--collect-only", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "tests/text/test_words.py::" in done.stdout
    assert "tests/engine/test_torch_eager.py::" not in done.stdout


def test_each_test_knows_its_tier(request: pytest.FixtureRequest) -> None:
    assert {mark.name for mark in request.node.iter_markers()} >= {"process"}  # this file starts one
