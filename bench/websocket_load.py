"""Cheap clients in a process of their own: one thread, plain sockets, prepared frames.

Clients that encode and parse messages cost more than the server. These send the same bytes repeatedly, and only read
the responses of a few clients that send pings.
"""

from __future__ import annotations

import select
import socket
import statistics
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.visits import upgrade
from conure.bench.sample_speech import read_voices, sample_recording
from conure.constants import SAMPLE_RATE

__all__ = ["LATENCY_MS", "WebSocketLoad", "LoadResult", "HttpLoad", "run_http", "run_websockets"]

LATENCY_MS = 320
"""Time between two responses with words."""
TIMEOUT = 30.0
PINGING_CLIENTS = 20
"""Clients that send pings, one at a time."""
PINGS_PER_SECOND = 5
POLL_INTERVAL = 0.001
"""Seconds between polls, which is the precision of response times."""


@dataclass(frozen=True)
class WebSocketLoad:
    port: int
    sockets: int
    packet_ms: int
    seconds: float


@dataclass(frozen=True)
class LoadResult:
    packets: int
    """Sent packets."""
    p50: float
    """Response time of pings, in seconds."""
    p99: float
    is_behind: bool
    """A socket's buffer was full, or the clients could not keep their rate."""


@dataclass(frozen=True)
class HttpLoad:
    port: int
    clients: int
    body: int
    """Bytes to upload; 0 for a GET request."""
    seconds: float


def run_websockets(end: Connection, load: WebSocketLoad) -> None:
    """Sends None when all clients are connected; runs when it receives a message, then sends a LoadResult."""
    clients = _Clients(load)
    end.send(None)
    end.recv()
    end.send(clients.run())
    end.recv()


class _Clients:
    def __init__(self, load: WebSocketLoad) -> None:
        (pcm,) = read_voices(sample_recording(), 1.0, 1)
        self._packet = _frame(2, pcm[: 2 * SAMPLE_RATE * load.packet_ms // 1000])
        self._ping_frame = _frame(1, b'{"type":"ping"}')
        self._load = load
        self._sockets = [_connect(load.port) for _ in range(load.sockets)]
        self._by_file = {one.fileno(): number for number, one in enumerate(self._sockets)}
        self._poll = select.epoll()
        for one in self._sockets:
            self._poll.register(one, select.EPOLLIN)
        self._ping_sent_at: dict[int, float] = {}
        """Time of each unanswered ping, by client."""
        self._response_times: list[float] = []
        self._is_stuck = False

    def run(self) -> LoadResult:
        count, interval = len(self._sockets), self._load.packet_ms / 1000 / len(self._sockets)
        begin, sent, pings = time.monotonic(), 0, 0
        next_poll, end = begin, begin + self._load.seconds
        while (now := time.monotonic()) < end and not self._is_stuck:
            while begin + sent * interval <= now:
                self._send(sent % count, self._packet)
                sent += 1
            if now >= next_poll:
                next_poll = now + POLL_INTERVAL
                self._poll_responses()
                if begin + pings / (PINGING_CLIENTS * PINGS_PER_SECOND) <= now:
                    self._send_ping(pings % PINGING_CLIENTS * count // PINGING_CLIENTS)
                    pings += 1
            time.sleep(max(0.0, begin + sent * interval - time.monotonic()))
        late = (time.monotonic() - begin) / interval - sent > count
        self._response_times += [time.monotonic() - since for since in self._ping_sent_at.values()]
        response_times = sorted(self._response_times) or [TIMEOUT]
        p99 = response_times[min(len(response_times) - 1, round(0.99 * len(response_times)))]
        return LoadResult(sent, statistics.median(response_times), p99, self._is_stuck or late)

    def _send(self, number: int, data: bytes) -> None:
        try:
            self._is_stuck |= self._sockets[number].send(data) < len(data)
        except BlockingIOError:
            self._is_stuck = True

    def _send_ping(self, number: int) -> None:
        if number not in self._ping_sent_at:
            self._ping_sent_at[number] = time.monotonic()
            self._send(number, self._ping_frame)

    def _poll_responses(self) -> None:
        for file, _ in self._poll.poll(0, len(self._sockets)):
            number = self._by_file[file]
            data = self._sockets[number].recv(65_536)
            assert data, "the server hung up"
            if number in self._ping_sent_at and b'"pong"' in data:
                self._response_times.append(time.monotonic() - self._ping_sent_at.pop(number))


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(upgrade("/v1/stream"))
    assert b"101" in connection.recv(4_096)
    connection.sendall(_frame(1, b'{"type":"config","latency_ms":%d}' % LATENCY_MS))
    connection.setblocking(False)
    return connection


def _frame(opcode: int, data: bytes) -> bytes:
    """Masked with zeros, which costs a server as much as another mask."""
    length = struct.pack("!B", 128 | len(data)) if len(data) < 126 else struct.pack("!BH", 254, len(data))
    return bytes([128 | opcode]) + length + bytes(4) + data


def run_http(end: Connection, load: HttpLoad) -> None:
    """Each client repeats its request after each response. Sends the list of response times."""
    path, method = ("/upload", "POST") if load.body else ("/small", "GET")
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {load.body}\r\n\r\n".encode()
    request = head + bytes(load.body)
    clients = [socket.create_connection(("127.0.0.1", load.port), timeout=TIMEOUT) for _ in range(load.clients)]
    poll = select.epoll()
    for client in clients:
        poll.register(client, select.EPOLLIN)
    by_file = {client.fileno(): client for client in clients}
    end.send(None)
    end.recv()
    until, response_times = time.monotonic() + load.seconds, []
    sent_at = {}
    for file, client in by_file.items():
        sent_at[file] = time.monotonic()
        client.sendall(request)
    while time.monotonic() < until:
        for file, _ in poll.poll(TIMEOUT):
            response = by_file[file].recv(4_096)
            assert response.startswith((b"HTTP/1.1 200", b"{")), response
            if response.endswith(b"}"):  # head and body may arrive separately
                response_times.append(time.monotonic() - sent_at[file])
                sent_at[file] = time.monotonic()
                by_file[file].sendall(request)
    end.send(response_times)
    end.recv()
