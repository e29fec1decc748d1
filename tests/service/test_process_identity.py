"""Tokens identify the process of their stream, and limits are divided among processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity

FOLDER = Path("/run/house")
SECOND = ProcessIdentity(2, 4, FOLDER)


def test_a_token_leads_to_its_process() -> None:
    token = SECOND.prefix_token("a-secret_1")
    assert SECOND.remote_socket(token) is None
    assert ProcessIdentity(3, 4, FOLDER).remote_socket(token) == SECOND.own_socket
    assert SINGLE_PROCESS.prefix_token("a-secret_1") == "a-secret_1"
    assert SINGLE_PROCESS.remote_socket(token) is None


@pytest.mark.parametrize("token", ["", "secret", ".secret", "../x.secret", "-1.secret", "²1.secret", "1e3.secret"])
def test_an_invalid_token_has_no_socket(token: str) -> None:
    assert SECOND.remote_socket(token) is None


def test_a_share_is_never_nothing() -> None:
    assert (SINGLE_PROCESS.share_of(8), SECOND.share_of(8), SECOND.share_of(3)) == (8, 2, 1)
