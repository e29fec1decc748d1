"""The server that all of these tests use."""

from __future__ import annotations

import openai

from tests.protocols.servers import Server


def test_server_is_ready(server: Server) -> None:
    assert server.health()["ready"]
    assert openai.__version__
