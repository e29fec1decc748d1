"""Broken messages at everything that listens: no failure, no hang, nothing left. `fuzzing.py` goes on for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocols.fuzz_targets import TARGETS, Target
from tests.protocols.fuzzing import State, batch, good, is_there, state_of, unharmed
from tests.protocols.live_clients import TINY, converse, finals, pcm16, pieces, socket_of
from tests.protocols.servers import SAID, Server, demo

SEED, CASES = 20261121, 40


@pytest.fixture(scope="module")
def before(server: Server) -> Iterator[State]:
    """After every target had visitors: what is made once is made."""
    server.settled(0)
    for target in TARGETS.values():
        batch(server, target, SEED - 1, range(4))
    server.settled(0)
    yield state_of(server)
    with socket_of(server) as client:
        assert finals(converse(client, [TINY, *pieces(pcm16(demo())), {"type": "close"}])) == SAID


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


@pytest.mark.parametrize("name", TARGETS)
def test_its_door_is_there(server: Server, name: str) -> None:
    assert is_there(server, TARGETS[name])


def test_a_good_client_is_understood(server: Server, target: Target) -> None:
    """Else broken messages would meet nothing but a refusal."""
    assert target.answer in good(server, target)


def test_broken_messages(server: Server, target: Target, before: State) -> None:
    with unharmed(server, before):
        batch(server, target, SEED, range(CASES))
