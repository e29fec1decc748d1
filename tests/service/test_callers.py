"""Callers with keys: scopes, counted usage, and invalid secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conure.errors import Forbidden, TooMany, Unauthorized
from conure.service import keys as key_files
from conure.service.access import ANONYMOUS, UNLIMITED, AnonymousAccess, Caller, Scope
from conure.service.callers import KeyedAccess, LocalUsage, open_access
from conure.service.keys import SCOPES, KeyFile, encode_keys, new_key
from conure.service.limits import NO_LIMITS, Limits
from conure.settings import load_settings


class Door:
    """A file with one key, and who is behind it."""

    def __init__(self, folder: Path, scopes: Sequence[Scope] = SCOPES, limits: Limits = NO_LIMITS) -> None:
        self.file = folder / "keys.json"
        self.key, self.secret = new_key("phone", datetime.now(UTC), tuple(scopes), limits)
        self.file.write_text(encode_keys([self.key]))
        self.access = KeyedAccess(KeyFile(self.file), LocalUsage())

    def caller(self) -> Caller:
        return self.access.identify(self.secret)


def test_a_missing_key_is_refused_with_a_hint(tmp_path: Path) -> None:
    door = Door(tmp_path)
    with pytest.raises(Unauthorized, match="API key is required") as caught:
        door.access.identify(None)
    assert "Bearer" in str(caught.value.hint)
    with pytest.raises(Unauthorized, match="not known") as caught:
        door.access.identify(door.secret + "x")
    assert door.secret not in str(caught.value)
    assert door.caller().name == "phone"


def test_a_scope_that_the_key_lacks(tmp_path: Path) -> None:
    door = Door(tmp_path, ["live"])
    assert asyncio.run(door.caller().begin_usage("live"))
    for scope in ("files", "status"):
        with pytest.raises(Forbidden, match=f"'phone' does not permit {scope}") as caught:
            asyncio.run(door.caller().begin_usage(scope))
        assert caught.value.hint == "its scopes: live"


def test_usage_is_counted_until_it_is_closed(tmp_path: Path) -> None:
    async def play() -> None:
        door = Door(tmp_path, limits=Limits(streams=1))
        caller = door.caller()
        visit = await caller.begin_usage("live")
        with pytest.raises(TooMany) as caught:
            await door.caller().begin_usage("live")
        assert caught.value.retry_after > 0
        visit.close()
        visit.close()
        (await caller.begin_usage("live")).close()

    asyncio.run(play())


def test_audio_is_counted_together_and_at_the_end(tmp_path: Path) -> None:
    async def play() -> None:
        door = Door(tmp_path, limits=Limits(audio_minutes_per_day=0.1))  # 6 s
        caller = door.caller()
        first = await caller.begin_usage("live")
        for _ in range(275):
            first.spend(0.02)
        first.close()  # 5.5 s, some of them not told before
        second = await caller.begin_usage("files")
        for _ in range(49):
            second.spend(0.02)
        with pytest.raises(TooMany):
            second.spend(0.03)
        with pytest.raises(TooMany):
            second.spend(0.02)
        second.close()
        with pytest.raises(TooMany):
            await caller.begin_usage("live")

    asyncio.run(play())


def test_without_limits_nothing_is_counted(tmp_path: Path) -> None:
    door = Door(tmp_path)
    assert asyncio.run(door.caller().begin_usage("live")) is UNLIMITED
    assert asyncio.run(Door(tmp_path, limits=Limits(requests_per_minute=1)).caller().begin_usage("status")) is UNLIMITED


def test_a_key_that_was_removed_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_files, "CHECK_INTERVAL", 0.0)
    door = Door(tmp_path)
    caller = door.caller()
    other, secret = new_key("other", datetime.now(UTC))
    door.file.write_text(encode_keys([other]))
    with pytest.raises(Unauthorized, match="'phone' was removed"):
        asyncio.run(caller.begin_usage("live"))
    with pytest.raises(Unauthorized):
        door.access.caller_named("phone")
    assert door.access.identify(secret).name == door.access.caller_named("other").name == "other"


def test_without_a_file_anyone_may_come(tmp_path: Path) -> None:
    access = open_access(load_settings(), LocalUsage())
    assert isinstance(access, AnonymousAccess)
    assert access.identify(None) is access.identify("x") is access.caller_named("") is ANONYMOUS
    assert not access.needs_key
    assert open_access(load_settings(keys=Door(tmp_path).file), LocalUsage()).needs_key
