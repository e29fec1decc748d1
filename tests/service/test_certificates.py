"""Unusable certificates are refused at the start, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from conure.errors import BadOption
from conure.service.certificates import check_certificate

TLS = Path(__file__).parents[1] / "data" / "tls"


def test_a_valid_certificate() -> None:
    check_certificate(TLS / "localhost.pem", TLS / "localhost.key.pem")
    check_certificate(None, None)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (None, "localhost.key.pem", "a TLS key without a certificate"),
        ("localhost.pem", None, "a TLS certificate without a key"),
        ("none.pem", "localhost.key.pem", "none.pem cannot be read: No such file"),
        ("localhost.pem", "none.pem", "none.pem cannot be read: No such file"),
        (".", "localhost.key.pem", "cannot be read: Is a directory"),
        ("localhost.pem", "expired.key.pem", "does not match the certificate"),
        ("localhost.key.pem", "localhost.key.pem", "not a certificate and its key"),
        ("localhost.pem", "localhost.pem", "not a certificate and its key"),
        ("../demo.flac", "localhost.key.pem", "not a certificate and its key"),
        ("localhost.pem", "locked.key.pem", "has a password"),
        ("expired.pem", "expired.key.pem", "expired on Jan  1 00:00:00 2021"),
        ("early.pem", "early.key.pem", "not valid before Jan  1 00:00:00 2100"),
    ],
)
def test_invalid_certificates(certificate: str | None, key: str | None, said: str) -> None:
    with pytest.raises(BadOption, match=said) as caught:
        check_certificate(certificate and TLS / certificate, key and TLS / key)
    assert caught.value.hint
