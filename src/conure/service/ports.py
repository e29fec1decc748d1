"""Ports that several processes listen on: each takes a share of the connections, as the kernel deals them out."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from conure.errors import BadOption

__all__ = ["reserved", "shared_sockets", "taken", "wanted"]


def wanted(port: int | str | None) -> int | None:
    """The number to listen on, where 0 is one that is free; None for a port that is off."""
    if port == "free":
        return 0
    return int(port) if port else None


@contextlib.contextmanager
def reserved(host: str, asked: int | str | None, name: str) -> Iterator[int | None]:
    """The port's number, which is kept for those who share it, whether they live or not; None for one that is off.

    Raises BadOption where somebody else has it.
    """
    port = wanted(asked)
    if port is None:
        yield None
        return
    try:
        with socket.create_server(_first(host, port)[1], family=_first(host, port)[0]) as alone:
            port = alone.getsockname()[1]  # nobody else shares it, either
        sockets = shared_sockets(host, port)
    except OSError:
        raise taken(name, port) from None
    with contextlib.ExitStack() as stack:
        for kept in sockets:
            stack.enter_context(kept)
        yield port


def shared_sockets(host: str, port: int) -> list[socket.socket]:
    """Bound to every address of the host, and not listening yet."""
    sockets = []
    for family, address in _addresses(host, port):
        bound = socket.socket(family)
        sockets.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    return sockets


def taken(name: str, port: int) -> BadOption:
    flag = "--" + name.replace("_", "-")
    return BadOption(f"port {port} is taken", f"stop what listens there, or choose another with {flag}")


def _first(host: str, port: int) -> tuple[int, tuple[str, int]]:
    return _addresses(host, port)[0]


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address[:2]) for family, _, _, _, address in found))  # type: ignore[misc]
