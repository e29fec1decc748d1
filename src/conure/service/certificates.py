"""Whether a certificate and its key can serve, before a client finds that they cannot."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

from conure.errors import BadOption

__all__ = ["check_certificate"]

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for: we compare dates ourselves, to tell them."""
OTHER_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL says of a key that is not the certificate's; the second where even its kind is another."""
ROUNDS = 4
"""Of a handshake, with one to spare."""


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raises BadOption for one without the other, for files that are no such thing or do not belong together, and for a
    certificate that is not valid yet or any more."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        given, missing = ("key", "certificate") if certificate is None else ("certificate", "key")
        raise BadOption(f"there is a TLS {given} and no {missing}", f"give --tls-{missing}, too, or neither")
    shown = _shown_by(_server(certificate, key), certificate)
    now, hint = time.time(), "take one that is valid, and check this machine's clock"
    if now < ssl.cert_time_to_seconds(shown["notBefore"]):
        raise BadOption(f"the certificate {certificate} is not valid before {shown['notBefore']}", hint)
    if now > ssl.cert_time_to_seconds(shown["notAfter"]):
        raise BadOption(f"the certificate {certificate} expired on {shown['notAfter']}", hint)


def _server(certificate: Path, key: Path) -> ssl.SSLContext:
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadOption(f"{path} cannot be read: {error.strerror}", "name a file in PEM form") from None

    def refuse() -> str:
        """Else OpenSSL would ask on the terminal."""
        raise BadOption(f"the key {key} has a password", f"store it without: openssl pkey -in {key} -out PLAIN")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason in OTHER_KEY:
            raise BadOption(f"the key {key} is not that of the certificate {certificate}", "take its own") from None
        raise BadOption(f"{certificate} and {key} are no certificate and its key", "both must be in PEM form") from None
    return context


def _shown_by(server: ssl.SSLContext, certificate: Path) -> dict[str, Any]:
    """The certificate as a client is shown it that trusts it alone: it need not lead to an authority that we know."""
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
        message = f"no client would take the certificate {certificate}: {error.reason}"
        raise BadOption(message, "it must be one for servers") from None
    shown: dict[str, Any] = sides[0].getpeercert() or {}
    return shown
