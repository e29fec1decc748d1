"""Checks a TLS certificate and its key when the server starts, before a client fails on them."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

from conure.errors import BadOption

__all__ = ["check_certificate"]

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python does not define. Dates are checked separately, to report them."""
MISMATCH = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""OpenSSL's errors for a key of another certificate; the second one if even the type of the key differs."""
ROUNDS = 4
"""Rounds of a handshake in memory, with one to spare."""


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raises BadOption if only one is given, or they are invalid or do not match, or the certificate is expired."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        given, missing = ("key", "certificate") if certificate is None else ("certificate", "key")
        raise BadOption(f"a TLS {given} without a {missing}", f"add --tls-{missing}, or use neither")
    fields = _certificate_seen_by_client(_server_context(certificate, key), certificate)
    now, hint = time.time(), "use a valid one, and check this machine's clock"
    if now < ssl.cert_time_to_seconds(fields["notBefore"]):
        raise BadOption(f"the certificate {certificate} is not valid before {fields['notBefore']}", hint)
    if now > ssl.cert_time_to_seconds(fields["notAfter"]):
        raise BadOption(f"the certificate {certificate} expired on {fields['notAfter']}", hint)


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadOption(f"{path} cannot be read: {error.strerror}", "use a file in PEM format") from None

    def refuse_password() -> str:
        """Without it OpenSSL would prompt on the terminal."""
        raise BadOption(f"the key {key} has a password", f"remove it: openssl pkey -in {key} -out PLAIN")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason in MISMATCH:
            raise BadOption(f"the key {key} does not match the certificate {certificate}", "use its own key") from None
        raise BadOption(
            f"{certificate} and {key} are not a certificate and its key", "use files in PEM format"
        ) from None
    return context


def _certificate_seen_by_client(server: ssl.SSLContext, certificate: Path) -> dict[str, Any]:
    """Fields of the certificate after a handshake with a client that trusts only it: its issuer may be unknown here."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in sides * ROUNDS:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError as error:
        message = f"clients would reject the certificate {certificate}: {error.reason}"
        raise BadOption(message, "it must be a server certificate") from None
    fields: dict[str, Any] = sides[0].getpeercert() or {}
    return fields
