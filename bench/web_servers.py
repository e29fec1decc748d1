"""What a packet costs in the web servers that could carry the doors: paced WebSockets into an empty application.

    pip install granian
    python -m bench.web_servers [--sockets 1000] [--every 0.2] [--packet-ms 20] [--seconds 10]

Each server runs in a process of its own with one event loop; its CPU time, of all threads, is divided by the packets
that arrived. Clients are in two processes and do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from multiprocessing import Process, get_context
from typing import Any

import psutil
import uvicorn
from websockets.asyncio.client import connect

from conure.bench.machine import machine
from conure.bench.speech import RATE
from conure.cli.tables import table
from conure.event_loop import event_loop

PROCESSES = 2
PATIENCE = 30.0


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Reads messages, and does nothing with them."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _uvicorn(port: int) -> None:
    config = uvicorn.Config(
        app, port=port, log_config=None, access_log=False, lifespan="off", ws_per_message_deflate=False
    )
    with asyncio.Runner(loop_factory=event_loop) as loop:
        loop.run(uvicorn.Server(config).serve())


def _granian(port: int) -> None:
    from granian import Granian  # noqa: PLC0415  it is no dependency of ours
    from granian.constants import Interfaces, Loops  # noqa: PLC0415

    Granian(
        "bench.web_servers:app", port=port, interface=Interfaces.ASGI, loop=Loops.uvloop, workers=1, log_enabled=False
    ).serve()


SERVERS: dict[str, Callable[[int], None]] = {"uvicorn": _uvicorn, "granian": _granian}


def main() -> None:
    options = _parser().parse_args()
    rows = [("server", "us a packet", "cores")]
    for name in SERVERS:
        try:
            spent, sent = _measure(name, options)
        except ConnectionError as error:
            rows.append((name, str(error), "-"))
        else:
            rows.append((name, f"{spent / sent * 1e6:.0f}", f"{spent / options.seconds:.2f}"))
    packets = options.sockets / options.every
    print(
        f"{machine()['processor']}; {options.sockets} sockets, {packets:.0f} packets of {options.packet_ms} ms a second"
    )
    print(table(rows), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--every", type=float, default=0.2, help="seconds from a socket's packet to its next one")
    parser.add_argument("--packet-ms", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    return parser


def _measure(name: str, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds of CPU, and packets."""
    port, context = _free_port(), get_context("spawn")
    server = context.Process(target=_serve, args=(name, port))
    server.start()
    try:
        _wait_for(port)
        ends, clients = [], []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            clients.append(context.Process(target=_clients, args=(theirs, port, options.sockets // PROCESSES, options)))
            clients[-1].start()
            ends.append(ours)
        for end in ends:
            end.recv()
        before = _cpu(server)
        for end in ends:
            end.send(None)
        sent = sum(end.recv() for end in ends)
        spent = _cpu(server) - before
        for client in clients:
            client.kill()
        return spent, sent
    finally:
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()
        server.join()


def _serve(name: str, port: int) -> None:
    SERVERS[name](port)


def _cpu(server: Process) -> float:
    whole = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (whole, *whole.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ConnectionError("did not start")


def _clients(end: Any, port: int, sockets: int, options: argparse.Namespace) -> None:
    with asyncio.Runner(loop_factory=event_loop) as loop:
        loop.run(_speak(end, port, sockets, options))


async def _speak(end: Any, port: int, count: int, options: argparse.Namespace) -> None:
    packet = bytes(2 * RATE * options.packet_ms // 1000)
    sockets = [await connect(f"ws://127.0.0.1:{port}/", compression=None, ping_interval=None) for _ in range(count)]
    end.send(None)
    await asyncio.to_thread(end.recv)
    begin, sent = time.monotonic(), 0
    while time.monotonic() < begin + options.seconds:
        due = begin + sent * options.every / count
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        await sockets[sent % count].send(packet)
        sent += 1
    end.send(sent)
    await asyncio.sleep(PATIENCE)


if __name__ == "__main__":
    main()
