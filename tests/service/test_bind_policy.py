"""Which ports and protocols are open, and to which clients: no access by oversight."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from conure.errors import BadOption, MissingBackend
from conure.service import bind_policy
from conure.service.bind_policy import access_summary, bind_settings, disabled_protocols, is_loopback
from conure.service.keys import encode_keys, new_key
from conure.settings import PROTOCOLS, load_settings

OFF = {"port": 0, "tcp_port": 0, "grpc_port": 0, "wyoming_port": 0, "status_port": 0}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    file.write_text(encode_keys([new_key("a", datetime.now(UTC))[0]]))
    return file


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1"])
def test_this_machine_alone_needs_no_keys(host: str) -> None:
    assert is_loopback(host)
    assert bind_settings(load_settings(host=host)).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1", "no.such.host.invalid"])
def test_others_come_in_with_keys_or_in_so_many_words(host: str, keys: Path) -> None:
    with pytest.raises(BadOption, match="no keys") as caught:
        bind_settings(load_settings(host=host))
    assert "--keys" in str(caught.value.hint)
    assert "--allow-anonymous" in str(caught.value.hint)
    assert bind_settings(load_settings(host=host, keys=keys))
    assert bind_settings(load_settings(host=host, allow_anonymous=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("allow_anonymous", [True, False])
def test_an_empty_key_file_is_refused(host: str, allow_anonymous: bool, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for text in (None, '{"keys": []}', "keys"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(BadOption, match=r"keys\.json"):
            bind_settings(load_settings(host=host, allow_anonymous=allow_anonymous, keys=file))


def test_access_summary(keys: Path) -> None:
    assert access_summary(load_settings()) == "this machine, without keys"
    assert access_summary(load_settings(allow_anonymous=True)) == "any client, without keys"
    assert access_summary(load_settings(keys=keys, allow_anonymous=True)) == f"keys of {keys}"


def test_every_combination_of_ports() -> None:
    names = [name for name in OFF if name != "status_port"]
    for numbers in product([0, 1234], repeat=len(names)):
        asked = OFF | dict(zip(names, numbers, strict=True))
        if not any(numbers):
            with pytest.raises(BadOption, match="all protocols are disabled"):
                bind_settings(
                    load_settings(
                        **asked,
                    )
                )
            continue
        found = bind_settings(load_settings(**asked))
        assert {name: getattr(found, name) for name in OFF} == asked


@pytest.mark.parametrize(
    ("without", "closed"),
    [
        ("native", {"tcp_port"}),
        ("riva", {"grpc_port"}),
        ("wyoming, riva", {"grpc_port", "wyoming_port"}),
        ("openai", set()),
    ],
)
def test_a_disabled_protocol_closes_its_port(without: str, closed: set[str]) -> None:
    found = bind_settings(load_settings(disable=without, grpc_port=1))
    assert {name for name in OFF if not getattr(found, name)} == closed


def test_a_web_port_without_protocols_does_not_count() -> None:
    on_the_web = ",".join(name for name in PROTOCOLS if name not in ("riva", "wyoming"))
    with pytest.raises(BadOption, match="all protocols are disabled"):
        bind_settings(load_settings(disable=on_the_web, grpc_port=0, wyoming_port=0))
    assert bind_settings(load_settings(disable=on_the_web, grpc_port=0)).wyoming_port
    assert bind_settings(load_settings(disable=on_the_web.replace("openai,", ""), grpc_port=0, wyoming_port=0))
    assert disabled_protocols(load_settings(disable=" native ,, riva")) == {"native", "riva"}


@pytest.mark.parametrize(("asked", "port"), [({}, 0), ({"grpc_port": 0}, 0)])
def test_grpc_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], port: int) -> None:
    monkeypatch.setattr(bind_policy, "GRPC", ("no_such_library",))
    assert bind_settings(load_settings(**asked)).grpc_port == port
    with pytest.raises(MissingBackend, match="gRPC is not installed"):
        bind_settings(load_settings(grpc_port=50051))


@pytest.mark.parametrize("cors", ["https://a.example/", "a.example", "https://A.example", "https://a.example,x y"])
def test_invalid_origins(cors: str) -> None:
    with pytest.raises(BadOption, match="--cors is") as caught:
        load_settings(cors=cors)
    assert "use the form https://example.com" in str(caught.value.hint)


def test_pages() -> None:
    for cors in ("", "*", "null", "https://a.example, http://localhost:3000"):
        assert load_settings(cors=cors).cors == cors


def test_an_empty_path_is_unset(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    monkeypatch.setenv("CONURE_KEYS", str(keys))
    assert load_settings().keys == keys
    assert load_settings(keys=Path("")).keys is None
