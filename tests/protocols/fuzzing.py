"""Throws broken messages at everything that listens, and looks whether the server is as it was.

    python -m tests.protocols.fuzzing [--seconds 600] [--seed N] [--only NAME ...] [--cases 50]

A case is what a good client says, with some of it changed (`mutations.py`), framed well or not (`wires.py`), cut into
pieces and ended in one of five ways. The same seed, target and number are the same case.
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
from tests.protocols.mutations import Said, broken, mutated, shuffled
from tests.protocols.servers import Server, started
from tests.waiting import PATIENCE, wait_for

__all__ = ["State", "batch", "good", "is_there", "state_of", "unharmed"]

ENDINGS = ("close", "reset", "half", "listen", "stay")
"""`half` says that it has nothing more to say; `stay` says and hears nothing until others have gone."""
FAILED = b"HTTP/1.1 500"
AT_ONCE = 8
"""Clients."""
CHANGED, CUT = 0.3, 0.15
"""How often a message is changed, and some bytes on their way."""
LISTEN_SECONDS = 0.05
"""For what is said to a client that does not care."""
DECODERS = 32
"""Threads that stay for the next containers."""


@dataclass(frozen=True)
class State:
    files: int
    threads: int
    megabytes: float


def state_of(server: Server) -> State:
    files, threads = server.handles()
    return State(files, threads, psutil.Process(server.process.pid).memory_info().rss / 1e6)


def is_there(server: Server, target: Target) -> bool:
    """Whether a door answers at all."""
    if target.port not in server.ports:
        return False
    if target.port != "web":
        return True
    said = [] if target.is_socket else [target.wire(one, None) for one in target.talk(Random(0))]
    answer = _told(server, target, said, b"\r\n\r\n")
    missing = (b"HTTP/1.1 403",) if target.is_socket else (b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 415")
    return not answer.startswith(missing)


def good(server: Server, target: Target) -> bytes:
    """What a client hears that says only good things, up to what it waits for."""
    said = target.talk(Random(0))
    return _told(server, target, [target.wire(one, None) for one in said], target.answer)


def batch(server: Server, target: Target, seed: int, numbers: Iterable[int]) -> None:
    """So many cases, some at once. Raises AssertionError for an answer that says that the server failed."""
    with ExitStack() as left_open, ThreadPoolExecutor(AT_ONCE) as clients:
        for number, fault in clients.map(
            lambda number: (number, _visit(server, target, seed, number, left_open)), numbers
        ):
            assert fault is None, f"{target.name}, seed {seed}, case {number}: {fault}"


@contextmanager
def unharmed(server: Server, before: State) -> Iterator[None]:
    """Waits at the end until everything is as it was before."""
    said = len(server.lines)
    yield
    with urllib.request.urlopen(server.base + "/health", timeout=PATIENCE) as answer:
        assert answer.status == 200
    wait_for(lambda: server.health()["streams"] == 0)
    wait_for(lambda: server.handles()[0] <= before.files)
    wait_for(lambda: server.handles()[1] <= before.threads + DECODERS)
    written = "".join(server.lines[said:])
    assert "Traceback" not in written, written


def _parts(target: Target, chance: Random) -> list[bytes]:
    """What is written, one after the other."""
    said: list[Said] = shuffled(target.talk(chance), chance)
    said = [mutated(one, chance) if chance.random() < CHANGED else one for one in said]
    parts = [target.opening, *(target.wire(one, chance) for one in said)]
    at = chance.randrange(len(parts))
    if chance.random() < CUT and (at > 0 or chance.random() < CUT):  # rarely is the opening none
        parts[at] = broken(parts[at], chance)
    return parts


def _visit(server: Server, target: Target, seed: int, number: int, left_open: ExitStack) -> str | None:
    """What is wrong with how the server took it."""
    chance = Random(f"{seed} {target.name} {number}")
    parts, ending = _parts(target, chance), chance.choice(ENDINGS)
    connection = socket.create_connection((server.host, server.ports[target.port]), timeout=PATIENCE)
    if ending == "stay":
        left_open.callback(reset, connection)
    heard = b""
    try:
        if parts[0] == target.opening:
            heard = _open(connection, target)
            del parts[0]
        for part in parts:
            for piece in _cut(part, chance):
                connection.sendall(piece)
                heard += _read(connection, 0)
        if ending == "half":
            connection.shutdown(socket.SHUT_WR)
        if ending in ("half", "listen"):
            heard += _read(connection, LISTEN_SECONDS)
    except TimeoutError:
        return f"took nothing for {PATIENCE} s"
    except OSError:
        pass  # it has hung up, which it may
    if ending != "stay":
        reset(connection) if ending == "reset" else connection.close()
    return "answered 500" if FAILED in heard else None


def _cut(part: bytes, chance: Random) -> list[bytes]:
    if len(part) < 2 or chance.random() > CUT:
        return [part]
    places = [0, *sorted(chance.randrange(len(part)) for _ in range(4)), len(part)]
    return [part[begin:end] for begin, end in pairwise(places)]


def _read(connection: socket.socket, seconds: float) -> bytes:
    """What comes until it is quiet for so long."""
    heard = b""
    connection.settimeout(seconds)
    try:
        while data := connection.recv(2**16):
            heard += data
    except (BlockingIOError, TimeoutError):
        pass
    connection.settimeout(PATIENCE)
    return heard


def _told(server: Server, target: Target, parts: list[bytes], until: bytes) -> bytes:
    """What is heard up to there, or all of it where that never comes."""
    heard = b""
    address = server.host, server.ports[target.port]
    with suppress(OSError), socket.create_connection(address, timeout=PATIENCE) as connection:
        heard = _open(connection, target)
        for part in parts:
            connection.sendall(part)
        while until not in heard and (data := connection.recv(2**16)):
            heard += data
    return heard


def _open(connection: socket.socket, target: Target) -> bytes:
    """The answer to the opening of a WebSocket: nobody may speak before it."""
    connection.sendall(target.opening)
    heard = b""
    while target.is_socket and b"\r\n\r\n" not in heard and (data := connection.recv(2**16)):
        heard += data
    return heard


def main() -> None:
    asked = _parser().parse_args()
    with tempfile.TemporaryDirectory() as cache, started("tiny", Path(cache), "--resume-seconds", "2") as server:
        targets = [target for name, target in TARGETS.items() if name in (asked.only or TARGETS)]
        rounds = _seeds(asked.seed)
        for target in targets:
            batch(server, target, 0, range(AT_ONCE))  # whatever is made once is made
        before, until = state_of(server), time.monotonic() + asked.seconds
        while time.monotonic() < until:
            seed = next(rounds)
            for target in targets:
                try:
                    with unharmed(server, before):
                        batch(server, target, seed, range(asked.cases))
                except AssertionError as error:
                    sys.exit(f"{target.name}, seed {seed}: {error}\n{server.errors}")
            sys.stdout.write(f"seed {seed}: {len(targets)} targets, {asked.cases} cases each; {state_of(server)}\n")
            sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="of the first round; without it random ones")
    parser.add_argument("--only", nargs="*", help="names of targets")
    parser.add_argument("--cases", type=int, default=50, help="of a target in a round")
    return parser


def _seeds(first: int | None) -> Iterator[int]:
    return itertools.count(first) if first is not None else iter(lambda: random.randrange(2**32), None)


if __name__ == "__main__":
    main()
