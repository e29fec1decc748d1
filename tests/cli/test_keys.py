"""`conure keys`: the secret is printed once and alone, and the file is for its owner."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conure.cli.main import main
from conure.service.keys import KeyFile, read_keys
from tests.cli.conftest import Call

FILE = ("--keys", "keys.json")


def test_add_list_remove(call: Call, folder: Path) -> None:
    limits = ("--requests-per-minute", "10", "--streams", "4", "--audio-minutes-per-day", "90.5")
    done = call("keys", "add", "phone", *FILE, "--scope", "status", "--scope", "live", *limits)
    assert (done.code, done.err) == (0, "")
    (secret,) = done.out.splitlines()
    other = call("keys", "add", "all", *FILE).out.strip()
    assert (folder / "keys.json").stat().st_mode & 0o777 == 0o600
    keys = KeyFile(folder / "keys.json")
    key, whole = keys.find_by_secret(secret, 0.0), keys.find_by_secret(other, 0.0)
    assert key is not None
    assert whole is not None
    assert (key.name, key.scopes, key.limits.streams, key.limits.requests_per_minute) == (
        *("phone", ("live", "status"), 4, 10),
    )
    assert (whole.scopes, whole.limits.streams) == (("live", "files", "status"), None)

    listed = call("keys", "list", *FILE).out.splitlines()
    assert listed[0].split()[:3] == ["NAME", "ID", "FOR"]
    assert listed[1].split()[:-1] == ["phone", key.id, "live", "status", "10", "4", "90.5"]
    assert listed[2].split()[:-1] == ["all", whole.id, "live", "files", "status", "-", "-", "-"]
    facts = json.loads(call("keys", "list", *FILE, "--json").out)
    assert [fact["name"] for fact in facts] == ["phone", "all"]
    assert facts[0]["limits"] == {"requests_per_minute": 10, "streams": 4, "audio_minutes_per_day": 90.5}
    assert not any("hash" in fact for fact in facts)

    assert call("keys", "remove", "phone", *FILE).out == ""
    assert call("keys", "remove", whole.id, *FILE).code == 0
    assert read_keys(folder / "keys.json") == []
    assert call("keys", "list", *FILE).out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("add", "phone", *FILE), "key 'phone' already exists"),
        (("add", " ", *FILE), "invalid key name"),
        (("add", "a\nb", *FILE), "invalid key name"),
        (("add", "x" * 101, *FILE), "invalid key name"),
        (("add", "x", *FILE, "--scope", "all"), "--scope is 'all'"),
        (("add", "x", *FILE, "--streams", "0"), "--streams"),
        (("add", "x"), "no keys file given"),
        (("list",), "no keys file given"),
        (("list", "--keys", "other.json"), "other.json does not exist"),
        (("remove", "x", *FILE), "no key 'x'"),
        (("remove", "x", "--keys", "other.json"), "other.json does not exist"),
        (("add", "x", "--keys", "/dev/null/keys.json"), "keys.json"),
    ],
)
def test_invalid_arguments(call: Call, folder: Path, arguments: tuple[str, ...], error: str) -> None:
    call("keys", "add", "phone", *FILE)
    before = (folder / "keys.json").read_text()
    done = call("keys", *arguments)
    assert (done.code, done.out) == (2, "")
    assert error in done.err
    assert "hint:" in done.err
    assert (folder / "keys.json").read_text() == before


def test_a_broken_file_is_left_alone(call: Call, folder: Path) -> None:
    (folder / "keys.json").write_text("{")
    assert call("keys", "add", "phone", *FILE).code == 2
    assert (folder / "keys.json").read_text() == "{"


def test_the_file_may_be_in_the_settings(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_KEYS", str(folder / "deep" / "keys.json"))
    assert call("keys", "add", "phone").code == 0
    assert [key.name for key in read_keys(folder / "deep" / "keys.json")] == ["phone"]


def test_concurrent_adds_lose_no_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda n: main(["keys", "add", f"key {n}", *FILE]), range(12)))
    assert codes == [0] * 12
    assert len(read_keys(folder / "keys.json")) == 12
