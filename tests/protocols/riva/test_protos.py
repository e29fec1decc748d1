"""The generated messages match the .proto files."""

from __future__ import annotations

import pytest

from tools.make_protos import RIVA, generated


def test_generated_messages_are_up_to_date() -> None:
    pytest.importorskip("grpc_tools")
    for name, text in generated().items():
        assert (RIVA / name).read_text() == text, f"{name} is stale: python -m tools.make_protos"
