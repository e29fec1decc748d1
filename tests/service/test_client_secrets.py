"""Client secrets: verification, expiry and claims."""

from __future__ import annotations

import pytest

from conure.errors import BadOption
from conure.protocols.http.credentials import read_credential
from conure.service.client_secrets import ClientSecrets

SESSION = {"type": "transcription", "include": None}


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_any_process_with_the_key_verifies_them_until_they_expire() -> None:
    clock = Clock()
    minted = ClientSecrets(b"key", clock).mint("browser", 60, SESSION)
    assert minted.expires_at == 1_060
    other = ClientSecrets(b"key", clock)
    opened = other.verify(minted.value)
    assert opened is not None
    assert (opened.caller, opened.expires_at, opened.session) == ("browser", 1_060, SESSION)
    clock.now = 1_059.9
    assert other.verify(minted.value)
    clock.now = 1_060.0
    assert other.verify(minted.value) is None


def test_no_other_key_opens_them_and_nothing_is_changed_in_them() -> None:
    secrets = ClientSecrets(b"key")
    minted = secrets.mint("browser", 60, SESSION).value
    assert ClientSecrets(b"other").verify(minted) is None
    payload, _, signature = minted.partition(".")
    longer = secrets.mint("browser", 600, SESSION).value.partition(".")[0]
    for forged in (f"{longer}.{signature}", payload, f"{payload}.", minted[:-1], minted + "A", minted.upper()):
        assert secrets.verify(forged) is None


@pytest.mark.parametrize("secret", [None, "", "ek_", "ek_.", "ek_ä.ä", "ek_a.b", "sk-key", "cnr_key"])
def test_invalid_secrets(secret: str | None) -> None:
    assert ClientSecrets(b"").verify(secret) is None


@pytest.mark.parametrize("seconds", [-1, 0, 9, 7201])
def test_they_live_neither_too_long_nor_too_short(seconds: int) -> None:
    with pytest.raises(BadOption, match=str(seconds)):
        ClientSecrets(b"").mint("", seconds, {})


def test_they_fit_where_secrets_are_sent() -> None:
    secrets = ClientSecrets(b"")
    with pytest.raises(BadOption, match="bytes"):
        secrets.mint("", 60, {"prompt": "p" * 5_000})
    value = secrets.mint("", 60, {"prompt": "p" * 4_000}).value
    headers = {"sec-websocket-protocol": f"realtime, openai-insecure-api-key.{value}"}
    assert read_credential(headers) == value
    assert secrets.verify(value)
