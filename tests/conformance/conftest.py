"""One server with the tiny models, in its own process, tested with third-party clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocols.servers import Server, started

PYTHON = os.environ["CONURE_PYTHON"]
"""The interpreter that has Conure, which is not installed in the clients' environment."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def server(cache: Path) -> Iterator[Server]:
    with started("tiny", cache, "--drain-seconds", "2", python=PYTHON) as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test, no stream may be left."""
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").settled(0)
