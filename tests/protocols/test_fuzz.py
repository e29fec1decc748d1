"""Fuzzing of every port and endpoint: no failure, no hang, no leak. `fuzzing.py` runs it for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocols.fuzz_targets import TARGETS, Target
from tests.protocols.fuzzing import State, is_served, run_cases, send_valid_messages, state_of, unchanged
from tests.protocols.live_clients import TINY, converse, finals, pcm16, pieces, socket_of
from tests.protocols.servers import SAID, Server, demo

SEED, CASES = 20261121, 40


@pytest.fixture(scope="module")
def before(server: Server) -> Iterator[State]:
    """The state after a warm-up of every target."""
    server.settled(0)
    for target in TARGETS.values():
        run_cases(server, target, SEED - 1, range(4))
    server.settled(0)
    yield state_of(server)
    with socket_of(server) as client:
        assert finals(converse(client, [TINY, *pieces(pcm16(demo())), {"type": "close"}])) == SAID


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


@pytest.mark.parametrize("name", TARGETS)
def test_target_is_served(server: Server, name: str) -> None:
    assert is_served(server, TARGETS[name])


def test_valid_messages_are_answered(server: Server, target: Target) -> None:
    """Checks that the unmutated messages are valid."""
    assert target.answer in send_valid_messages(server, target)


def test_broken_messages(server: Server, target: Target, before: State) -> None:
    with unchanged(server, before):
        run_cases(server, target, SEED, range(CASES))
