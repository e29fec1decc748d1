"""Checks for leaks with clients that disconnect before sending audio.

    conure serve --model tiny --resume-seconds 2 &
    python -m bench.visits --count 10000

Prints the server's streams, open files and threads before and after the connections.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import struct
import time
import urllib.request

import psutil

__all__ = ["come_and_go", "reset", "upgrade"]

TIMEOUT = 300.0
SETTLING = 10.0
"""Seconds, longer than --resume-seconds of the server."""
AUDIO_LINE = json.dumps({"type": "audio", "data": base64.b64encode(bytes(6_400)).decode()}).encode() + b"\n"


def upgrade(path: str) -> bytes:
    """The HTTP request that opens a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def reset(connection: socket.socket) -> None:
    """Closes the connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def come_and_go(host: str, web: int, tcp: int, status: int, count: int) -> None:
    """`count` connections to all ports, one after the other; two of three end with a reset."""
    visits = [
        (tcp, b""),
        (tcp, AUDIO_LINE),
        (tcp, b'{"type": "config"}\n' + AUDIO_LINE),
        (status, b""),
        (web, b""),
        (web, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (web, upgrade("/v1/stream")),
        (web, upgrade("/v1/stream?events=true")),
        (web, upgrade("/ws")),
        (web, b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nRIFF"),
    ]
    for number in range(count):
        port, request = visits[number % len(visits)]
        connection = socket.create_connection((host, port), timeout=TIMEOUT)
        connection.sendall(request)
        if number % 3:
            reset(connection)
        else:
            connection.close()


def _describe(host: str, web: int) -> str:
    with urllib.request.urlopen(f"http://{host}:{web}/health", timeout=TIMEOUT) as response:
        streams = json.load(response)["streams"]
    (process,) = {
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == web and connection.pid
    }
    return f"{streams} streams, {process.num_fds()} open files, {process.num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--web", type=int, default=8000)
    parser.add_argument("--tcp", type=int, default=8765)
    parser.add_argument("--status", type=int, default=8050)
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    print("before:", _describe(options.host, options.web))
    begin = time.monotonic()
    come_and_go(options.host, options.web, options.tcp, options.status, options.count)
    print(f"{options.count} visits in {time.monotonic() - begin:.1f} s")
    time.sleep(SETTLING)
    print("after: ", _describe(options.host, options.web))


if __name__ == "__main__":
    main()
