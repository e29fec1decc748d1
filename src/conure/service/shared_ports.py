"""Ports that several processes share (SO_REUSEPORT): the kernel distributes connections among them."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

from conure.errors import BadOption

__all__ = ["open_listeners", "reserve_port", "bind_shared", "port_in_use", "port_to_bind"]

BACKLOG = 2048
"""Connections that may wait to be accepted, up to the limit of the system."""
NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A host may have an IPv6 address on a system without IPv6."""


def port_to_bind(port: int | str | None) -> int | None:
    """The number to bind, 0 for any free port; None for a port that is off."""
    if port == "free":
        return 0
    return int(port) if port else None


@contextlib.contextmanager
def reserve_port(host: str, setting: int | str | None, name: str) -> Iterator[int | None]:
    """The port's number, reserved for the processes that share it even while none runs; None for a port that is off.

    Raises BadOption if the port is in use.
    """
    port = port_to_bind(setting)
    if port is None:
        yield None
        return
    try:
        with socket.create_server(_first_address(host, port)[1], family=_first_address(host, port)[0]) as exclusive:
            port = exclusive.getsockname()[1]  # no other program shares it
        sockets = bind_shared(host, port)
    except OSError:
        raise port_in_use(name, port) from None
    with contextlib.ExitStack() as stack:
        for kept in sockets:
            stack.enter_context(kept)
        yield port


def bind_shared(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of the host, not listening yet."""
    return _bind(host, port, shared=True)


def open_listeners(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """Listening sockets at every address of the host, all on one port even if `port` is 0. Raises OSError.

    `shared`: several processes may listen on it.
    """
    sockets = _bind(host, port, shared=shared)
    for listener in sockets:
        listener.setblocking(False)
        listener.listen(BACKLOG)
    return sockets


def _bind(host: str, port: int, *, shared: bool) -> list[socket.socket]:
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
            raise OSError(errno.EADDRNOTAVAIL, f"{host} is not an address of this machine")
        undo.pop_all()
        return sockets


def _set_options(bound: socket.socket, shared: bool) -> None:
    if sys.platform != "win32":  # where it would let other programs bind the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def port_in_use(name: str, port: int) -> BadOption:
    flag = "--" + name.replace("_", "-")
    return BadOption(f"port {port} is taken", f"stop the program that listens on it, or use another port with {flag}")


def _first_address(host: str, port: int) -> tuple[int, tuple[str, int]]:
    return _addresses(host, port)[0]


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address[:2]) for family, _, _, _, address in resolved))  # type: ignore[misc]
