"""Compares web servers with paced WebSockets and HTTP, each server in a separate process.

    pip install granian picows httptools
    python -m bench.servers [--sockets 1000] [--packets-ms 20 100] [--rounds 3] [--seconds 4] [--json FILE]

    CPU      microseconds per packet of all threads of the server, including responses; servers are measured in turn,
             and the median of rounds counts, so that other load affects all of them
    held     the largest number of WebSockets, up to --sockets, whose pings are answered within 100 ms (p99)

Clients run in one process and send prepared frames (`bench/websocket_load.py`). Servers are in `bench/web_servers.py`.
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

from bench.web_servers import HTTP_SERVERS, WEBSOCKET_SERVERS, serve
from bench.websocket_load import HttpLoad, LoadResult, WebSocketLoad, run_http, run_websockets
from conure.bench.machine import machine, machine_line
from conure.cli.tables import table

APPLICATIONS = ("empty", "door")
TIMEOUT = 60.0
MAX_P99 = 0.1
"""Limit of the response time of pings, in seconds."""
SHARES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.06)
"""Shares of --sockets to try, in this order."""
PACKETS = 4_000
"""Packets per second for the comparison of CPU, which all servers sustain."""
BODIES = {"small": 0, "1 MB": 1_000_000}
UPLOADERS = 8

Row = dict[str, Any]


def main() -> None:
    options = _parser().parse_args()
    rows = []
    with _kill_children():
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
def _kill_children() -> Iterator[None]:
    """Kills all child processes at the end."""
    try:
        yield
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


def _compare_sockets(options: argparse.Namespace) -> list[Row]:
    """CPU per packet, at a rate that every server sustains."""
    rows = []
    for application in APPLICATIONS:
        for packet_ms in options.packets_ms:
            count = min(options.sockets, PACKETS * packet_ms // 1000)
            found: dict[str, list[tuple[float, LoadResult]]] = {name: [] for name in WEBSOCKET_SERVERS}
            for _ in range(options.rounds):
                for name in WEBSOCKET_SERVERS:
                    found[name].append(_measure_websockets(name, application, count, packet_ms, options.seconds))
            for name, rounds in found.items():
                each = [cpu / result.packets * 1e6 for cpu, result in rounds]
                rows.append(
                    {
                        "what": "sockets", "application": application, "packet_ms": packet_ms, "sockets": count,
                        "server": name, "us": statistics.median(each), "us_rounds": each,
                        "p50_ms": statistics.median(result.p50 for _, result in rounds) * 1e3,
                        "p99_ms": statistics.median(result.p99 for _, result in rounds) * 1e3,
                    }
                )  # fmt: skip
    return rows


def _search(options: argparse.Namespace) -> list[Row]:
    """The number of WebSockets that each server sustains."""
    rows = []
    for application in APPLICATIONS:
        for packet_ms in options.packets_ms:
            for name in WEBSOCKET_SERVERS:
                for part in SHARES:
                    count = round(options.sockets * part)
                    cpu, result = _measure_websockets(name, application, count, packet_ms, options.seconds)
                    if result.p99 <= MAX_P99 and not result.has_backlog:
                        break
                rows.append(
                    {
                        "what": "held", "application": application, "packet_ms": packet_ms, "sockets": count,
                        "server": name, "us": cpu / result.packets * 1e6, "cores": cpu / options.seconds,
                        **asdict(result),
                    }
                )  # fmt: skip
    return rows


def _compare_http(options: argparse.Namespace) -> list[Row]:
    rows = []
    for what, size in BODIES.items():
        found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in HTTP_SERVERS}
        for _ in range(options.rounds):
            for name in HTTP_SERVERS:
                found[name].append(_measure_http(name, size, options.seconds))
        for name, rounds in found.items():
            waited = sorted(one for _, each in rounds for one in each)
            rows.append(
                {
                    "what": "http", "request": what, "server": name,
                    "us": statistics.median(cpu / len(each) * 1e6 for cpu, each in rounds),
                    "a_second": statistics.median(len(each) / options.seconds for _, each in rounds),
                    "p50_ms": statistics.median(waited) * 1e3, "p99_ms": waited[int(0.99 * len(waited))] * 1e3,
                }
            )  # fmt: skip
    return rows


def _measure_websockets(
    name: str, application: str, count: int, packet_ms: int, seconds: float
) -> tuple[float, LoadResult]:
    """CPU seconds of the server, and the result of the clients."""
    with _served(name, application) as (server, port):
        return _measure(server, run_websockets, WebSocketLoad(port, count, packet_ms, seconds))


def _measure_http(name: str, body: int, seconds: float) -> tuple[float, list[float]]:
    with _served(name, "empty") as (server, port):
        return _measure(server, run_http, HttpLoad(port, UPLOADERS, body, seconds))


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


def _measure(server: Process, work: Callable[..., None], load: Any) -> tuple[float, Any]:
    parent_end, child_end = get_context("spawn").Pipe()
    clients = get_context("spawn").Process(target=work, args=(child_end, load))
    clients.start()
    child_end.close()
    parent_end.recv()
    before = _cpu(server)
    parent_end.send(None)
    result = parent_end.recv()
    cpu = _cpu(server) - before
    clients.kill()
    clients.join()
    return cpu, result


def _cpu(server: Process) -> float:
    whole = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (whole, *whole.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ConnectionError("did not start")


def _print(rows: list[Row]) -> None:
    if not rows:
        return
    names = [name for name in rows[0] if name not in ("what", "us_rounds", "packets", "is_behind")]
    print(table([names, *([_format(name, row[name]) for name in names] for row in rows)]))


def _format(name: str, value: Any) -> str:
    if name in ("p50", "p99"):
        return f"{value * 1e3:.1f} ms"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
