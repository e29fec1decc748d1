"""Starts a server as users do, in its own process, and accesses it only through its ports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DEMO",
    "MOST_UPLOAD",
    "PATIENCE",
    "QUIET",
    "ROOT",
    "SAID",
    "TINY_MODEL",
    "Server",
    "demo",
    "started",
    "wait_for",
]

ROOT = Path(__file__).parents[2]
TINY_MODEL = ROOT / "src" / "conure" / "data" / "tiny"
DEMO = ROOT / "tests" / "data" / "demo.flac"
SAID = "seven three nine zero one five eight two"
QUIET = round(3.92 * 16_000)
"""A sample in the middle of the demo's second longest pause, after its fourth word."""
MOST_UPLOAD = 2**20
PORTS = ("port", "tcp-port", "grpc-port", "wyoming-port", "status-port")
DOORS = re.compile(r"(web|tcp|grpc|wyoming|status) (?:https?://)?(\S+):(\d+)")


def demo(rate: int = 16_000) -> np.ndarray:
    """The demo, float32 [n] at that rate."""
    import numpy as np  # noqa: PLC0415  not needed by tests of other programs' clients

    from conure.audio.files import open_audio  # noqa: PLC0415

    with open_audio(DEMO, rate=rate, channels="mix") as reader:
        return np.concatenate([block[0] for block in reader.blocks()])


class Server:
    def __init__(
        self, command: list[str], cache: Path, key: str | None = None, settings: dict[str, str] | None = None
    ) -> None:
        """`key`: sent with all HTTP requests. `settings`: environment variables."""
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        environment = os.environ | {
            "CONURE_CACHE": str(cache),
            "CONURE_MAX_UPLOAD_MB": str(MOST_UPLOAD / 1e6),
            "PYTHONPATH": str(ROOT / "src"),
            **(settings or {}),
        }
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, errors="backslashreplace", env=environment
        )  # libraries may log bytes that clients sent
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def begin(self) -> None:
        """Waits until the server is ready."""
        wait_for(lambda: self.process.poll() is not None or any(line.startswith("ready") for line in self.lines))
        assert self.process.poll() is None, self.errors
        told = next(line for line in self.lines if line.startswith("ports"))
        found = DOORS.findall(told)
        assert found, self.errors
        self.host: str = found[0][1]
        self.ports = {name: int(port) for name, _, port in found}

    @property
    def web(self) -> int:
        return self.ports["web"]

    @property
    def tcp(self) -> int:
        return self.ports["tcp"]

    @property
    def status(self) -> int:
        return self.ports["status"]

    @property
    def errors(self) -> str:
        """Everything written to stderr."""
        return "".join(self.lines)

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.web}"

    def url(self, path: str) -> str:
        return f"ws://{self.host}:{self.web}{path}"

    def get(self, path: str) -> tuple[int, bytes]:
        return self.post(path, None)

    def post(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.base + path, data=body, headers=self.headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def health(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.get("/health")[1])
        return told

    def told(self) -> dict[str, Any]:
        """The response of the status port."""
        with socket.create_connection((self.host, self.status), timeout=PATIENCE) as connection:
            said: dict[str, Any] = json.loads(connection.makefile().read())
        return said

    def metric(self, name: str) -> float:
        """0 for a metric that was never set."""
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def settled(self, streams: int) -> None:
        """Waits until the number of open streams is `streams`."""
        wait_for(lambda: self.health()["streams"] == streams)

    def handles(self) -> tuple[int, int]:
        """Number of open files and sockets, and of threads."""
        process = psutil.Process(self.process.pid)
        return process.num_fds(), process.num_threads()

    def engine(self) -> psutil.Process:
        return psutil.Process(self.health()["processes"]["engine"])

    def kill_engine(self) -> None:
        self.engine().kill()

    def stop(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        return code

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line)  # visible immediately, unlike with `extend`


@contextlib.contextmanager
def started(
    live: str,
    cache: Path,
    *options: str,
    module: str = "conure",
    python: str = sys.executable,
    key: str | None = None,
    settings: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Uses free ports unless the options set them. Kills the process at the end if it is still running."""
    ports = [part for name in PORTS if f"--{name}" not in options for part in (f"--{name}", "free")]
    command = [python, "-m", module, "serve", "--live-models", live, "--file-models", "tiny", "--device", "cpu"]
    server = Server([*command, "--threads", "1", *ports, *options], cache, key, settings)
    try:
        server.begin()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
