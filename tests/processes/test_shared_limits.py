"""Usage of keys counted by the parent of several processes: as in one process, with messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from conure.errors import Busy, TooMany
from conure.processes import control_protocol
from conure.processes.control_protocol import BeginUsage, ControlChannel, EndUsage, Message, ReserveUsage, SpendUsage
from conure.processes.shared_limits import SharedLedger, SharedUsage
from conure.service.limits import Limits

ONE_MINUTE = Limits(audio_minutes_per_day=1.0)


class Parent:
    """Answers in the next round of the event loop."""

    def __init__(self) -> None:
        self._ledger = SharedLedger()

    def counts(self, process: int) -> SharedUsage:
        counts: SharedUsage

        class Line:
            def send(_, said: Message) -> None:  # noqa: N805
                answer = self._ledger.handle_request(
                    process, cast(BeginUsage | ReserveUsage | SpendUsage | EndUsage, said), 0.0
                )
                if answer:
                    asyncio.get_running_loop().call_soon(counts.handle_response, answer)

        counts = SharedUsage(cast(ControlChannel, Line()))
        return counts

    def lose(self, process: int) -> None:
        self._ledger.release_process(process)


def play(scene: Callable[[Parent], Awaitable[None]]) -> None:
    asyncio.run(scene(Parent()))  # type: ignore[arg-type]


def nothing(error: TooMany) -> None:
    raise AssertionError(error)


def test_a_parent_that_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told so, and what may have begun is taken back."""
    monkeypatch.setattr(control_protocol, "RESPONSE_TIMEOUT", 0.05)
    said: list[Message] = []

    class Silent:
        def send(self, message: Message) -> None:
            said.append(message)

    async def ask() -> None:
        counts = SharedUsage(cast(ControlChannel, Silent()))
        with pytest.raises(Busy, match="parent process does not respond"):
            await counts.begin("a", ONE_MINUTE, "files", nothing)

    asyncio.run(ask())
    assert [type(message) for message in said] == [BeginUsage, EndUsage]


def test_a_reservation_counts_for_all_processes() -> None:
    async def scene(parent: Parent) -> None:
        first, second = parent.counts(1), parent.counts(2)
        one = await first.begin("a", ONE_MINUTE, "files", nothing)
        two = await second.begin("a", ONE_MINUTE, "files", nothing)
        await first.reserve(one, 90.0)
        with pytest.raises(TooMany, match="in progress"):
            await second.reserve(two, 1.0)
        with pytest.raises(TooMany):
            await second.begin("a", ONE_MINUTE, "files", nothing)
        first.end(one)
        await second.reserve(two, 1.0)

    play(scene)


def test_a_dead_process_releases_its_reservations() -> None:
    async def scene(parent: Parent) -> None:
        first, second = parent.counts(1), parent.counts(2)
        await first.reserve(await first.begin("a", ONE_MINUTE, "files", nothing), 90.0)
        parent.lose(1)
        await second.reserve(await second.begin("a", ONE_MINUTE, "files", nothing), 90.0)

    play(scene)


def test_exceeding_a_reservation_is_reported() -> None:
    async def scene(parent: Parent) -> None:
        told: list[TooMany] = []
        counts = parent.counts(1)
        number = await counts.begin("a", ONE_MINUTE, "files", told.append)
        await counts.reserve(number, 80.0)
        counts.spend(number, 70.0)
        await asyncio.sleep(0)
        assert not told
        counts.spend(number, 20.0)
        await asyncio.sleep(0)
        assert len(told) == 1

    play(scene)
