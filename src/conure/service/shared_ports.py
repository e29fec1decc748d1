"""Ports that several processes listen on: each takes a share of the connections, as the kernel deals them out."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

from conure.errors import BadOption

__all__ = ["open_listeners", "reserve_port", "bind_shared", "port_in_use", "port_to_bind"]

BACKLOG = 2048
"""Connections that wait to be accepted, where the system allows so many."""
NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A host may have an address of IPv6 where there is no IPv6."""


def port_to_bind(port: int | str | None) -> int | None:
    """The number to listen on, where 0 is one that is free; None for a port that is off."""
    if port == "free":
        return 0
    return int(port) if port else None


@contextlib.contextmanager
def reserve_port(host: str, asked: int | str | None, name: str) -> Iterator[int | None]:
    """The port's number, which is kept for those who share it, whether they live or not; None for one that is off.

    Raises BadOption where somebody else has it.
    """
    port = port_to_bind(asked)
    if port is None:
        yield None
        return
    try:
        with socket.create_server(_first(host, port)[1], family=_first(host, port)[0]) as alone:
            port = alone.getsockname()[1]  # nobody else shares it, either
        sockets = bind_shared(host, port)
    except OSError:
        raise port_in_use(name, port) from None
    with contextlib.ExitStack() as stack:
        for kept in sockets:
            stack.enter_context(kept)
        yield port


def bind_shared(host: str, port: int) -> list[socket.socket]:
    """Bound to every address of the host, and not listening yet."""
    return _bound(host, port, shared=True)


def open_listeners(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """At every address of the host, on one port also where that is 0; several processes may share it.

    Raises OSError.
    """
    sockets = _bound(host, port, shared=shared)
    for listener in sockets:
        listener.setblocking(False)
        listener.listen(BACKLOG)
    return sockets


def _bound(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for family, address in _addresses(host, port):
            number = port or (sockets[0].getsockname()[1] if sockets else 0)
            try:
                bound = undo.enter_context(socket.socket(family))
                _set_options(bound, shared)
                bound.bind((address[0], number))
            except OSError as error:
                if error.errno not in NO_SUCH_FAMILY:
                    raise
            else:
                sockets.append(bound)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} is no address of this machine")
        undo.pop_all()
        return sockets


def _set_options(bound: socket.socket, shared: bool) -> None:
    if sys.platform != "win32":  # where it would let others take the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def port_in_use(name: str, port: int) -> BadOption:
    flag = "--" + name.replace("_", "-")
    return BadOption(f"port {port} is taken", f"stop what listens there, or choose another with {flag}")


def _first(host: str, port: int) -> tuple[int, tuple[str, int]]:
    return _addresses(host, port)[0]


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address[:2]) for family, _, _, _, address in found))  # type: ignore[misc]
