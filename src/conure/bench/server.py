"""The server under test, either running or started for the measurement; its processes, load and models."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from conure.background import spawn_thread
from conure.errors import BadOption, EngineFailed

__all__ = ["NO_CLIPS", "NO_LIVE", "Server", "StepCounts", "start_server", "connect_to_server"]

NO_CLIPS = NO_LIVE = ","
"""Value of a model setting that disables these models."""
LOCAL_OPTIONS = ["--host", "127.0.0.1", "--keys", "", "--tls-certificate", "", "--tls-key", ""]
"""Overrides settings of the machine that are meant for its production server."""
TIMEOUT = 10.0
DRAIN_SECONDS = 1.0
"""Time between the first SIGTERM and the second, which skips the drain."""
STOP_SECONDS = 40.0
"""Includes the time in which the server waits for disconnected streams to resume."""
MAX_LINES = 20
"""Lines of a server's stderr that are kept for the error message."""


@dataclass(frozen=True)
class StepCounts:
    """Live steps since the start of the server."""

    count: float
    rows: float
    seconds: float

    def __sub__(self, before: StepCounts) -> StepCounts:
        return StepCounts(self.count - before.count, self.rows - before.rows, self.seconds - before.seconds)


@dataclass(frozen=True)
class Server:
    url: str
    """http://host:port"""
    process: psutil.Process | None
    """None if it does not run on this machine."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Authorization of requests."""

    @property
    def stream_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/stream"

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each process."""
        times = {name: process.cpu_times() for name, process in self.processes().items()}
        return {name: spent.user + spent.system for name, spent in times.items()}

    def step_counts(self) -> StepCounts:
        found = {"seconds_count": 0.0, "seconds_sum": 0.0, "rows_sum": 0.0}
        for family in text_string_to_metric_families(self._get("/metrics").decode()):
            for sample in family.samples:
                name = sample.name.removeprefix("conure_step_").removeprefix("conure_batch_")
                if name in found and sample.labels.get("stage", "live") == "live":
                    found[name] += sample.value
        return StepCounts(found["seconds_count"], found["rows_sum"], found["seconds_sum"])

    def estimated_streams(self, latency_ms: int) -> int:
        """Capacity that the server reports for its first live model. Raises BadOption if it lacks the latency."""
        capacities = [model["streams"] for model in self.models() if model["live"]]
        if not capacities or str(latency_ms) not in capacities[0]:
            known = ", ".join(capacities[0]) if capacities else "none"
            raise BadOption(f"the server has no latency of {latency_ms} ms", f"it has: {known}")
        return int(capacities[0][str(latency_ms)])

    def models(self) -> list[dict[str, Any]]:
        """Facts about each model, as reported by /health."""
        models: list[dict[str, Any]] = self._health()["models"]
        return models

    def transcribe(self, recording: bytes, model: str | None = None) -> str:
        """The text of a recording. Raises EngineFailed with the server's message if it has none."""
        query = f"?model={model}" if model else ""
        request = urllib.request.Request(
            self.url + "/v1/transcribe" + query, data=recording, headers=self.headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60 * TIMEOUT) as response:
                return str(msgspec.json.decode(response.read())["text"])
        except urllib.error.HTTPError as error:
            raise EngineFailed(f"the server rejected a recording: {error.read().decode()}") from None
        except OSError as error:
            raise EngineFailed(f"no response to a recording: {error}") from None

    def processes(self) -> dict[str, psutil.Process]:
        """The current processes by the names that the server reports; empty if it runs on another machine."""
        if self.process is None:
            return {}
        ids: dict[str, int] = self._health()["processes"]
        return {name: psutil.Process(number) for name, number in ids.items() if psutil.pid_exists(number)}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process; shared memory counts in each."""
        return {name: process.memory_info().rss for name, process in self.processes().items()}

    def _health(self) -> dict[str, Any]:
        health: dict[str, Any] = msgspec.json.decode(self._get("/health"))
        return health

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers=self.headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            body: bytes = response.read()
        return body


def connect_to_server(url: str, key: str | None = None) -> Server:
    """A running server. Raises BadOption if it does not respond, or if the key lacks a scope."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = parts.scheme.replace("ws", "http", 1)
    process = _process_listening_on(parts.port or (443 if scheme == "https" else 80))
    server = Server(f"{scheme}://{parts.netloc}", process, {"Authorization": f"Bearer {key}"} if key else {})
    try:
        server.step_counts()
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in (401, 403):
                raise BadOption(f"{url} responds with HTTP {error.code}", "is it a Conure server?") from None
        hint = "use --key or CONURE_KEY"
        raise BadOption(f"{url} needs a key with the scopes live, files and status", hint) from None
    except (OSError, ValueError) as error:
        raise BadOption(f"no server at {url}: {error}", "start one with `conure serve`") from None
    return server


@contextlib.contextmanager
def start_server(options: Sequence[str], python: str = sys.executable) -> Iterator[Server]:
    """Runs `conure serve` with these options, on free ports, until the context is left. `python` has Conure installed.

    Raises EngineFailed with the end of its log if it does not start.
    """
    ports = ["--port", "free", "--tcp-port", "0", "--status-port", "0", "--grpc-port", "0", "--wyoming-port", "0"]
    command = [python, "-m", "conure", "serve", *ports, *LOCAL_OPTIONS, *options]
    last_lines: deque[str] = deque(maxlen=MAX_LINES)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log_reader, interrupt = None, True
        try:
            url = _wait_for_url(process.stderr, last_lines)
            if url is None:
                hint = "try this command: " + " ".join(["conure", *command[3:]])
                raise EngineFailed("the server did not start: " + " ".join(last_lines), hint)
            log_reader = spawn_thread(partial(last_lines.extend, process.stderr), "reading the log of a server")
            yield Server(url, psutil.Process(process.pid))
            interrupt = False
        finally:
            _stop(process, interrupt)
            if log_reader:
                log_reader.join()


def _stop(process: subprocess.Popen[str], interrupt: bool) -> None:
    """Terminates the server. With `interrupt`, a second SIGTERM ends the drain of open streams."""
    for timeout in (DRAIN_SECONDS, STOP_SECONDS) if interrupt else (STOP_SECONDS,):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            return
    process.kill()


def _wait_for_url(lines: Iterable[str], last_lines: deque[str]) -> str | None:
    """The URL that the server prints when it is ready; None if it exits."""
    url = None
    for line in lines:
        last_lines.append(line.strip())
        if found := re.match(r"ports\s+web (http://[^\s,]+)", line):
            url = found[1]
        if line.startswith("ready"):
            return url
    return None


def _process_listening_on(port: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None
