"""What all tests share: tiers, and kernels that are interpreted where there is no GPU."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tiers import FAST, NEEDS, needs

# Who starts tests in the background may have them ignore it, and what they start would do so, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

GPU = Path("/dev/nvidiactl")
"""There where NVIDIA's driver is."""
# How long an example takes depends on what else the machine does.
settings.register_profile("conure", deadline=None)
settings.load_profile("conure")

HEAVY = {"torch", "triton"}
KERNELS = (
    *("clip_attention", "filter_step", "joint_step", "label_step", "lstm_step"),
    *("ring_attention", "token_scores"),
)


class _Without:
    """Finds nothing of some libraries, though they are installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.split(".", maxsplit=1)[0] in HEAVY:
            raise ModuleNotFoundError(f"the fast tier does without {name}", name=name)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == FAST:
        sys.meta_path.insert(0, _Without())  # type: ignore[arg-type]
    elif not GPU.exists():
        # Triton decides when a kernel is first imported, by whomever, whether it is interpreted.
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m fast` files that need more are not even imported."""
    if config.option.markexpr != FAST or not collection_path.name.startswith("test_"):
        return None
    return bool(needs(collection_path)) or None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test has the marks of its file, and is fast where neither the file nor it has one."""
    for mark in needs(item.path):
        item.add_marker(mark)
    if not any(item.get_closest_marker(mark) for mark in NEEDS):
        item.add_marker(FAST)


def pytest_collection_finish() -> None:
    """From here on kernels are interpreted where a test says so alone; those that are imported stay what they are."""
    if "torch" in sys.modules and not GPU.exists():
        with contextlib.suppress(ImportError):
            for name in KERNELS:
                importlib.import_module(f"conure.fused.{name}_kernel")
    os.environ.pop("TRITON_INTERPRET", None)


@pytest.fixture(autouse=True)
def _log_stays_as_it_was() -> Iterator[None]:
    """A command that runs in this process sets it for its own, and the next test would see no line of it."""
    ours = logging.getLogger("conure")
    before = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = before[0], before[2]
    ours.setLevel(before[1])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of servers: a model is converted for the first of them alone."""
    return tmp_path_factory.mktemp("cache")
