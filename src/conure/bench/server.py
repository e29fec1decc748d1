"""The server that is measured: one that runs, or one that is started for it; its processes and its turns."""

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

from conure.background import thread
from conure.errors import BadOption, EngineFailed

__all__ = ["NO_CLIPS", "NO_LIVE", "Server", "Turns", "start_server", "the_server_at"]

NO_CLIPS = NO_LIVE = ","
"""A list of models without a name in it."""
ALONE = ["--host", "127.0.0.1", "--keys", "", "--tls-certificate", "", "--tls-key", ""]
"""Whatever the settings say of the server that is for others."""
PATIENCE = 10.0
TWICE = 1.0
"""Seconds between being told to stop, and to stop at once."""
STOPPING = 40.0
"""Seconds; streams that were cut off are waited for."""
LINES = 20
"""What is kept of a server's stderr, to say why it did not start."""


@dataclass(frozen=True)
class Turns:
    """Live turns so far."""

    count: float
    rows: float
    seconds: float

    def since(self, before: Turns) -> Turns:
        return Turns(self.count - before.count, self.rows - before.rows, self.seconds - before.seconds)


@dataclass(frozen=True)
class Server:
    url: str
    """http://host:port"""
    process: psutil.Process | None
    """Where it runs on this machine."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """What it wants to be sent."""

    @property
    def stream_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/stream"

    def cpu(self) -> dict[str, float]:
        """Seconds that each process has computed."""
        times = {name: process.cpu_times() for name, process in self.processes().items()}
        return {name: spent.user + spent.system for name, spent in times.items()}

    def turns(self) -> Turns:
        found = {"seconds_count": 0.0, "seconds_sum": 0.0, "rows_sum": 0.0}
        for family in text_string_to_metric_families(self._get("/metrics").decode()):
            for sample in family.samples:
                name = sample.name.removeprefix("conure_turn_").removeprefix("conure_batch_")
                if name in found and sample.labels.get("stage", "live") == "live":
                    found[name] += sample.value
        return Turns(found["seconds_count"], found["rows_sum"], found["seconds_sum"])

    def room(self, latency_ms: int) -> int:
        """Streams that the server thinks it holds, with its first live model."""
        rooms = [model["streams"] for model in self.models() if model["live"]]
        if not rooms or str(latency_ms) not in rooms[0]:
            known = ", ".join(rooms[0]) if rooms else "none"
            raise BadOption(f"the server has no latency of {latency_ms} ms", f"it has: {known}")
        return int(rooms[0][str(latency_ms)])

    def models(self) -> list[dict[str, Any]]:
        """What it says of each."""
        models: list[dict[str, Any]] = self._health()["models"]
        return models

    def transcribe(self, recording: bytes, model: str | None = None) -> str:
        """The text of a recording. Raises EngineFailed with what the server says where it has none."""
        query = f"?model={model}" if model else ""
        request = urllib.request.Request(
            self.url + "/v1/transcribe" + query, data=recording, headers=self.headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60 * PATIENCE) as answer:
                return str(msgspec.json.decode(answer.read())["text"])
        except urllib.error.HTTPError as error:
            raise EngineFailed(f"the server refused a recording: {error.read().decode()}") from None
        except OSError as error:
            raise EngineFailed(f"the server has not answered a recording: {error}") from None

    def processes(self) -> dict[str, psutil.Process]:
        """By the names that the server gives them, as they are now; none where they are not on this machine."""
        if self.process is None:
            return {}
        ids: dict[str, int] = self._health()["processes"]
        return {name: psutil.Process(number) for name, number in ids.items() if psutil.pid_exists(number)}

    def memory(self) -> dict[str, int]:
        """Bytes that each process has, shared ones counted in each."""
        return {name: process.memory_info().rss for name, process in self.processes().items()}

    def _health(self) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.json.decode(self._get("/health"))
        return told

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers=self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body: bytes = answer.read()
        return body


def the_server_at(url: str, key: str | None = None) -> Server:
    """Raises BadOption where none answers, or not to that key, which must be for all that is asked of a server."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = parts.scheme.replace("ws", "http", 1)
    process = _listening(parts.port or (443 if scheme == "https" else 80))
    server = Server(f"{scheme}://{parts.netloc}", process, {"Authorization": f"Bearer {key}"} if key else {})
    try:
        server.turns()
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in (401, 403):
                raise BadOption(f"{url} answers with HTTP {error.code}", "is it a Conure server?") from None
        raise BadOption(f"{url} needs a key for live, files and status", "give one with --key or CONURE_KEY") from None
    except (OSError, ValueError) as error:
        raise BadOption(f"no server answers at {url}: {error}", "start one with `conure serve`") from None
    return server


@contextlib.contextmanager
def start_server(options: Sequence[str], python: str = sys.executable) -> Iterator[Server]:
    """`conure serve` with these options on ports that are free, until the context is left; with the Python that has it.

    Raises EngineFailed with what it said where it does not start.
    """
    ports = ["--port", "free", "--tcp-port", "0", "--status-port", "0", "--grpc-port", "0", "--wyoming-port", "0"]
    command = [python, "-m", "conure", "serve", *ports, *ALONE, *options]
    last: deque[str] = deque(maxlen=LINES)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        rest, at_once = None, True
        try:
            url = _announced(process.stderr, last)
            if url is None:
                hint = "try it alone: " + " ".join(["conure", *command[3:]])
                raise EngineFailed("the server did not start: " + " ".join(last), hint)
            rest = thread(partial(last.extend, process.stderr), "reading what a server logs")
            yield Server(url, psutil.Process(process.pid))
            at_once = False
        finally:
            _stop(process, at_once)
            if rest:
                rest.join()


def _stop(process: subprocess.Popen[str], at_once: bool) -> None:
    """`at_once` does not wait for streams that are open."""
    for patience in (TWICE, STOPPING) if at_once else (STOPPING,):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
    process.kill()


def _announced(lines: Iterable[str], last: deque[str]) -> str | None:
    """Where the server listens, once it does."""
    url = None
    for line in lines:
        last.append(line.strip())
        if found := re.match(r"doors\s+web (http://[^\s,]+)", line):
            url = found[1]
        if line.startswith("ready"):
            return url
    return None


def _listening(port: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None
