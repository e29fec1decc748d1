"""A port is bound once, or shared by the processes of one server."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from conure.errors import BadOption
from conure.service.shared_ports import bind_shared, reserve_port

HOST = "127.0.0.1"


def test_all_processes_of_a_shared_port_get_connections() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(reserve_port(HOST, "free", "port"))
        listening = [stack.enter_context(found) for _ in range(2) for found in bind_shared(HOST, port)]
        for found in listening:
            found.listen()
            found.settimeout(0)
        for _ in range(60):
            stack.enter_context(socket.create_connection((HOST, port)))
        assert [count(found, stack) > 0 for found in listening] == [True, True]


def count(listening: socket.socket, stack: ExitStack) -> int:
    found = 0
    while True:
        try:
            stack.enter_context(listening.accept()[0])
        except BlockingIOError:
            return found
        found += 1


def test_no_other_program_can_bind_a_reserved_port() -> None:
    with reserve_port(HOST, "free", "port") as port, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, port))


def test_a_port_that_others_share_is_taken() -> None:
    with reserve_port(HOST, "free", "port") as port:
        (listening,) = bind_shared(HOST, port)
        with listening:
            listening.listen()
            with pytest.raises(BadOption, match=f"port {port} is taken"), reserve_port(HOST, port, "tcp_port"):
                pass
    with reserve_port(HOST, port, "port") as again:
        assert again == port
