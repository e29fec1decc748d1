"""Sends invalid messages to every port and endpoint, and checks that the server is unchanged afterwards.

    python -m tests.protocols.fuzzing [--seconds 600] [--seed N] [--only NAME ...] [--cases 50]

A case is a sequence of valid messages, some of them mutated (`mutations.py`), framed correctly or not (`wires.py`),
split into pieces and ended in one of five ways. The same seed, target and number give the same case.
"""

from __future__ import annotations

import argparse
import itertools
import random
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import psutil

from bench.visits import reset
from tests.protocols.fuzz_targets import TARGETS, Target
from tests.protocols.mutations import Message, corrupt, mutate, shuffle
from tests.protocols.servers import Server, started
from tests.waiting import PATIENCE, wait_for

__all__ = ["State", "run_cases", "send_valid_messages", "is_served", "state_of", "unchanged"]

ENDINGS = ("close", "reset", "half", "listen", "stay")
"""`half` half-closes the connection; `stay` neither sends nor reads until the other cases of the batch have ended."""
FAILED = b"HTTP/1.1 500"
CONCURRENT_CLIENTS = 8
"""Concurrent clients."""
MUTATION_RATE, CORRUPTION_RATE = 0.3, 0.15
"""Probability that a message is mutated, and that its bytes are."""
LISTEN_SECONDS = 0.05
"""For reading the server's response."""
DECODERS = 32
"""Decoder threads that the server keeps."""


@dataclass(frozen=True)
class State:
    files: int
    threads: int
    megabytes: float


def state_of(server: Server) -> State:
    files, threads = server.handles()
    return State(files, threads, psutil.Process(server.process.pid).memory_info().rss / 1e6)


def is_served(server: Server, target: Target) -> bool:
    """Whether the target has a port and a route."""
    if target.port not in server.ports:
        return False
    if target.port != "web":
        return True
    messages = [] if target.is_socket else [target.wire(message, None) for message in target.messages(Random(0))]
    answer = _exchange(server, target, messages, b"\r\n\r\n")
    missing = (b"HTTP/1.1 403",) if target.is_socket else (b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 415")
    return not answer.startswith(missing)


def send_valid_messages(server: Server, target: Target) -> bytes:
    """Sends only valid messages; returns the response up to the expected answer."""
    messages = target.messages(Random(0))
    return _exchange(server, target, [target.wire(message, None) for message in messages], target.answer)


def run_cases(server: Server, target: Target, seed: int, numbers: Iterable[int]) -> None:
    """Runs cases, some concurrently. Raises AssertionError if the server reports an internal error or hangs."""
    with ExitStack() as open_connections, ThreadPoolExecutor(CONCURRENT_CLIENTS) as clients:
        for number, fault in clients.map(
            lambda number: (number, _run_case(server, target, seed, number, open_connections)), numbers
        ):
            assert fault is None, f"{target.name}, seed {seed}, case {number}: {fault}"


@contextmanager
def unchanged(server: Server, before: State) -> Iterator[None]:
    """Waits at the end until streams, files and threads are back to their previous numbers."""
    messages = len(server.lines)
    yield
    with urllib.request.urlopen(server.base + "/health", timeout=PATIENCE) as answer:
        assert answer.status == 200
    wait_for(lambda: server.health()["streams"] == 0)
    wait_for(lambda: server.handles()[0] <= before.files)
    wait_for(lambda: server.handles()[1] <= before.threads + DECODERS)
    written = "".join(server.lines[messages:])
    assert "Traceback" not in written, written


def _case_bytes(target: Target, rng: Random) -> list[bytes]:
    """The bytes of a case, one part per message."""
    messages: list[Message] = shuffle(target.messages(rng), rng)
    messages = [mutate(message, rng) if rng.random() < MUTATION_RATE else message for message in messages]
    parts = [target.opening, *(target.wire(message, rng) for message in messages)]
    at = rng.randrange(len(parts))
    if rng.random() < CORRUPTION_RATE and (at > 0 or rng.random() < CORRUPTION_RATE):  # rarely corrupts the opening
        parts[at] = corrupt(parts[at], rng)
    return parts


def _run_case(server: Server, target: Target, seed: int, number: int, open_connections: ExitStack) -> str | None:
    """Runs one case; returns the server's fault, if any."""
    rng = Random(f"{seed} {target.name} {number}")
    parts, ending = _case_bytes(target, rng), rng.choice(ENDINGS)
    connection = socket.create_connection((server.host, server.ports[target.port]), timeout=PATIENCE)
    if ending == "stay":
        open_connections.callback(reset, connection)
    received = b""
    try:
        if parts[0] == target.opening:
            received = _open(connection, target)
            del parts[0]
        for part in parts:
            for piece in _split(part, rng):
                connection.sendall(piece)
                received += _read(connection, 0)
        if ending == "half":
            connection.shutdown(socket.SHUT_WR)
        if ending in ("half", "listen"):
            received += _read(connection, LISTEN_SECONDS)
    except TimeoutError:
        return f"the server read nothing for {PATIENCE} s"
    except OSError:
        pass  # the server may close the connection
    if ending != "stay":
        reset(connection) if ending == "reset" else connection.close()
    return "answered 500" if FAILED in received else None


def _split(part: bytes, rng: Random) -> list[bytes]:
    if len(part) < 2 or rng.random() > CORRUPTION_RATE:
        return [part]
    offsets = [0, *sorted(rng.randrange(len(part)) for _ in range(4)), len(part)]
    return [part[begin:end] for begin, end in pairwise(offsets)]


def _read(connection: socket.socket, seconds: float) -> bytes:
    """Reads until nothing arrives for so long."""
    received = b""
    connection.settimeout(seconds)
    try:
        while data := connection.recv(2**16):
            received += data
    except (BlockingIOError, TimeoutError):
        pass
    connection.settimeout(PATIENCE)
    return received


def _exchange(server: Server, target: Target, parts: list[bytes], until: bytes) -> bytes:
    """Sends the parts and reads until `until`, or to the end."""
    received = b""
    address = server.host, server.ports[target.port]
    with suppress(OSError), socket.create_connection(address, timeout=PATIENCE) as connection:
        received = _open(connection, target)
        for part in parts:
            connection.sendall(part)
        while until not in received and (data := connection.recv(2**16)):
            received += data
    return received


def _open(connection: socket.socket, target: Target) -> bytes:
    """Sends the opening; for a WebSocket, waits for the response to the handshake."""
    connection.sendall(target.opening)
    received = b""
    while target.is_socket and b"\r\n\r\n" not in received and (data := connection.recv(2**16)):
        received += data
    return received


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as cache, started("tiny", Path(cache), "--resume-seconds", "2") as server:
        targets = [target for name, target in TARGETS.items() if name in (arguments.only or TARGETS)]
        rounds = _seeds(arguments.seed)
        for target in targets:
            run_cases(server, target, 0, range(CONCURRENT_CLIENTS))  # warm-up
        before, until = state_of(server), time.monotonic() + arguments.seconds
        while time.monotonic() < until:
            seed = next(rounds)
            for target in targets:
                try:
                    with unchanged(server, before):
                        run_cases(server, target, seed, range(arguments.cases))
                except AssertionError as error:
                    sys.exit(f"{target.name}, seed {seed}: {error}\n{server.errors}")
            sys.stdout.write(f"seed {seed}: {len(targets)} targets, {arguments.cases} cases each; {state_of(server)}\n")
            sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="seed of the first round; default: random")
    parser.add_argument("--only", nargs="*", help="names of targets")
    parser.add_argument("--cases", type=int, default=50, help="cases of each target per round")
    return parser


def _seeds(first: int | None) -> Iterator[int]:
    return itertools.count(first) if first is not None else iter(lambda: random.randrange(2**32), None)


if __name__ == "__main__":
    main()
