"""Keys: created once, stored as a hash, found by their secret only, reloaded when the file changes."""

from __future__ import annotations

import hmac
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conure.errors import BadOption
from conure.service.keys import Key, KeyFile, encode_keys, new_key, read_keys
from conure.service.limits import Limits

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def put(path: Path, *keys: Key) -> None:
    """As the command does: another file in its place."""
    other = path.with_suffix(".new")
    other.write_text(encode_keys(keys))
    other.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_by_its_secret_alone(file: Path) -> None:
    (first, secret), (second, other) = (new_key(name, NOW, ("live",), Limits(streams=2)) for name in ("a", "b"))
    put(file, first, second)
    keys = KeyFile(file)
    assert len(keys) == 2
    assert keys.find_by_secret(secret, 0.0) == first
    assert keys.find_by_secret(other, 0.0) == second
    assert keys.find_by_secret(secret[:-1], 0.0) is None
    assert keys.find_by_secret(secret + "x", 0.0) is None
    assert keys.find_by_secret(secret.replace(first.id, second.id), 0.0) is None
    assert keys.find_by_secret(first.hash, 0.0) is None
    assert keys.find_by_name("b", 0.0) == second
    assert keys.find_by_name("c", 0.0) is None


@given(text=st.text())
def test_anything_may_be_sent_as_a_key(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    key, _ = KEY
    file = tmp_path_factory.getbasetemp() / "any.json"
    if not file.exists():
        put(file, key)
    keys = KeyFile(file)
    for secret in (text, f"cnr_{text}", f"cnr_{key.id}_{text}"):
        assert keys.find_by_secret(secret, 0.0) is None


KEY = new_key("a", NOW)


def test_secrets_are_long_and_never_written(file: Path) -> None:
    key, secret = new_key("a", NOW)
    assert secret.startswith(f"cnr_{key.id}_")
    random = secret.removeprefix(f"cnr_{key.id}_")
    assert len(random) == 43
    assert not new_key("a", NOW)[1].endswith(random)
    put(file, key)
    assert random not in file.read_text()
    assert read_keys(file) == [key]


def test_secrets_are_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = new_key("a", NOW)
    put(file, key)
    compared = []
    plain = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or plain(a, b))
    assert KeyFile(file).find_by_secret(secret, 0.0)
    assert len(compared) == 1


def test_a_file_that_changed_is_read_again_but_seldom(file: Path) -> None:
    (first, secret), (second, other) = new_key("a", NOW), new_key("b", NOW)
    put(file, first)
    keys = KeyFile(file)
    assert keys.find_by_secret(other, 0.0) is None
    put(file, second)
    assert keys.find_by_secret(other, 0.5) is None
    assert keys.find_by_secret(other, 1.5) == second
    assert keys.find_by_secret(secret, 1.5) is None


def test_an_invalid_file_keeps_the_keys_and_a_missing_one_removes_them(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, secret = new_key("a", NOW)
    put(file, key)
    keys = KeyFile(file)
    file.write_text("{")
    assert keys.find_by_secret(secret, 10.0) == key
    assert "the previous keys stay valid" in caplog.text
    assert len(caplog.records) == 1
    assert keys.find_by_secret(secret, 20.0) == key
    assert len(caplog.records) == 1
    os.remove(file)
    assert keys.find_by_secret(secret, 30.0) is None
    put(file, key)
    assert keys.find_by_secret(secret, 40.0) == key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a key file"),
        ("[]", "is not a key file"),
        ("\xff", "is not a key file"),
        ('{"keys": [{"id": "x"}]}', "is not a key file"),
        ('{"keys": [{"name": "x", "secret": "y"}]}', "is not a key file"),
        ('{"keys": []}', "contains no key"),
    ],
)
def test_invalid_key_files(file: Path, text: str, said: str) -> None:
    file.write_text(text, encoding="latin-1")
    with pytest.raises(BadOption, match=said) as caught:
        KeyFile(file)
    assert caught.value.hint
    assert "conure keys" in caught.value.hint


def test_no_two_keys_are_alike(file: Path) -> None:
    (first, _), (second, _) = new_key("a", NOW), new_key("a", NOW)
    put(file, first, second)
    with pytest.raises(BadOption, match="two keys with the name 'a'"):
        read_keys(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(BadOption, match="does not exist") as caught:
        KeyFile(file)
    assert str(file) in str(caught.value.hint)
