"""Servers shared by the tests, with one live model that works on chunks and one that works on utterances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocols.servers import TINY_MODEL, Server, started


@pytest.fixture(scope="session")
def live_models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model named small, and the tiny model."""
    from tests.engine.live_model import save_live_model, talking_network  # noqa: PLC0415  imports torch

    return f"{save_live_model(talking_network(), tmp_path_factory.mktemp('models') / 'small')},{TINY_MODEL}"


@pytest.fixture(scope="session")
def server(live_models: str, cache: Path) -> Iterator[Server]:
    with started(live_models, cache, "--resume-seconds", "2", "--drain-seconds", "2") as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors


@pytest.fixture(scope="session")
def digits_server(cache: Path) -> Iterator[Server]:
    """With the default model for digits, which works on chunks, and the one that works on utterances."""
    with started(f"tiny,{TINY_MODEL}", cache, "--resume-seconds", "2", "--drain-seconds", "2") as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors
        assert "ASGI" not in running.errors
