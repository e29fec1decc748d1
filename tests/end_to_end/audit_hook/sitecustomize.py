"""Writes down which names are looked up and which addresses of other machines are used, in every Python process."""

import ipaddress
import os
import sys

PLAIN = {None, "", b"", "localhost", b"localhost"}


def is_here(host: object) -> bool:
    if host in PLAIN:
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def note(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not is_here(host):
        with open(os.environ["AUDIT_FILE"], "a") as file:
            file.write(f"{event} {host!r} by {sys.argv[:3]}\n")


sys.addaudithook(note)
