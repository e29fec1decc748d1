"""Which web server carries the doors: paced WebSockets and HTTP, each server in a process of its own.

    pip install granian picows httptools
    python -m bench.servers [--sockets 1000] [--packets-ms 20 100] [--rounds 3] [--seconds 4] [--json FILE]

    CPU      microseconds of all threads of the server for a packet, answers included; servers take turns, and rounds'
             medians are told, so that a noisy machine is noisy for all of them
    held     most of some numbers of WebSockets, at most --sockets, whose questions are answered within 100 ms (p99)

Clients are in one process that writes frames made before (`bench/speakers.py`); applications are in `bench/served.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from multiprocessing import Process, get_context
from pathlib import Path
from typing import Any

import psutil

from bench.served import OF_HTTP, OF_SOCKETS, serve
from bench.speakers import Asked, Heard, HttpAsked, post, speak
from conure.bench.machine import machine, machine_line
from conure.cli.tables import table

APPLICATIONS = ("empty", "door")
PATIENCE = 60.0
SOON = 0.1
"""Seconds within which 99 of 100 questions are answered where a server holds its WebSockets."""
PARTS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.06)
"""Of all sockets, which are tried one after the other."""
PACKETS = 4_000
"""A second while CPU is compared: all of them hold that."""
BODIES = {"small": 0, "1 MB": 1_000_000}
UPLOADERS = 8

Row = dict[str, Any]


def main() -> None:
    options = _parser().parse_args()
    rows = []
    with _switched_off_on_error():
        if "sockets" in options.what:
            rows += _compare_sockets(options)
        if "held" in options.what:
            rows += _search(options)
        if "http" in options.what:
            rows += _compare_http(options)
    print(f"{machine_line()}; load {machine()['load'][0]:.1f}")
    for what in options.what:
        _print([row for row in rows if row["what"] == what])
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="*", default=["sockets", "held", "http"])
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--packets-ms", type=int, nargs="*", default=[20, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path)
    return parser


@contextlib.contextmanager
def _switched_off_on_error() -> Iterator[None]:
    """No server outlives this."""
    try:
        yield
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


def _compare_sockets(options: argparse.Namespace) -> list[Row]:
    """CPU of a packet, at a rate that every server holds."""
    rows = []
    for application in APPLICATIONS:
        for packet_ms in options.packets_ms:
            count = min(options.sockets, PACKETS * packet_ms // 1000)
            found: dict[str, list[tuple[float, Heard]]] = {name: [] for name in OF_SOCKETS}
            for _ in range(options.rounds):
                for name in OF_SOCKETS:
                    found[name].append(_speak(name, application, count, packet_ms, options.seconds))
            for name, rounds in found.items():
                each = [spent / heard.packets * 1e6 for spent, heard in rounds]
                rows.append(
                    {
                        "what": "sockets", "application": application, "packet_ms": packet_ms, "sockets": count,
                        "server": name, "us": statistics.median(each), "us_rounds": each,
                        "p50_ms": statistics.median(heard.p50 for _, heard in rounds) * 1e3,
                        "p99_ms": statistics.median(heard.p99 for _, heard in rounds) * 1e3,
                    }
                )  # fmt: skip
    return rows


def _search(options: argparse.Namespace) -> list[Row]:
    """How many WebSockets each holds."""
    rows = []
    for application in APPLICATIONS:
        for packet_ms in options.packets_ms:
            for name in OF_SOCKETS:
                for part in PARTS:
                    count = round(options.sockets * part)
                    spent, heard = _speak(name, application, count, packet_ms, options.seconds)
                    if heard.p99 <= SOON and not heard.has_backlog:
                        break
                rows.append(
                    {
                        "what": "held", "application": application, "packet_ms": packet_ms, "sockets": count,
                        "server": name, "us": spent / heard.packets * 1e6, "cores": spent / options.seconds,
                        **asdict(heard),
                    }
                )  # fmt: skip
    return rows


def _compare_http(options: argparse.Namespace) -> list[Row]:
    rows = []
    for what, size in BODIES.items():
        found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in OF_HTTP}
        for _ in range(options.rounds):
            for name in OF_HTTP:
                found[name].append(_post(name, size, options.seconds))
        for name, rounds in found.items():
            waited = sorted(one for _, each in rounds for one in each)
            rows.append(
                {
                    "what": "http", "request": what, "server": name,
                    "us": statistics.median(spent / len(each) * 1e6 for spent, each in rounds),
                    "a_second": statistics.median(len(each) / options.seconds for _, each in rounds),
                    "p50_ms": statistics.median(waited) * 1e3, "p99_ms": waited[int(0.99 * len(waited))] * 1e3,
                }
            )  # fmt: skip
    return rows


def _speak(name: str, application: str, count: int, packet_ms: int, seconds: float) -> tuple[float, Heard]:
    """Seconds of CPU, and what clients saw."""
    with _served(name, application) as (server, port):
        return _measured(server, speak, Asked(port, count, packet_ms, seconds))


def _post(name: str, body: int, seconds: float) -> tuple[float, list[float]]:
    with _served(name, "empty") as (server, port):
        return _measured(server, post, HttpAsked(port, UPLOADERS, body, seconds))


@contextlib.contextmanager
def _served(name: str, application: str) -> Iterator[tuple[Process, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = get_context("spawn").Process(target=serve, args=(name, application, port))
    server.start()
    try:
        _wait_for(port)
        yield server, port
    finally:
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()
        server.join()


def _measured(server: Process, work: Callable[..., None], asked: Any) -> tuple[float, Any]:
    ours, theirs = get_context("spawn").Pipe()
    clients = get_context("spawn").Process(target=work, args=(theirs, asked))
    clients.start()
    theirs.close()
    ours.recv()
    before = _cpu(server)
    ours.send(None)
    heard = ours.recv()
    spent = _cpu(server) - before
    clients.kill()
    clients.join()
    return spent, heard


def _cpu(server: Process) -> float:
    whole = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (whole, *whole.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ConnectionError("did not start")


def _print(rows: list[Row]) -> None:
    if not rows:
        return
    names = [name for name in rows[0] if name not in ("what", "us_rounds", "packets", "is_behind")]
    print(table([names, *([_told(name, row[name]) for name in names] for row in rows)]))


def _told(name: str, value: Any) -> str:
    if name in ("p50", "p99"):
        return f"{value * 1e3:.1f} ms"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
