"""Commands and servers make no unrequested connection, and keep no data that a library would send later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from conure.telemetry import TELEMETRY_VARIABLES
from tests.end_to_end.auditing import Audit
from tests.protocols.servers import DEMO, DOORS, PORTS, ROOT, SAID
from tests.waiting import PATIENCE, wait_for

AFTER_SECONDS = 20
"""That a server is watched at least: ONNX Runtime looks its maker's collector up 10 s after it was imported."""
OWN = ("home/.cache/conure/", "home/.config/conure/", "work/keys.json", "work/.keys.json.lock", "work/said.txt")
CONURE = [sys.executable, "-m", "conure"]
FREE = [part for port in PORTS for part in (f"--{port}", "free")]
LIBRARY = f"""
import conure
recognizer = conure.load("tiny", device="cpu")
assert recognizer.transcribe({str(DEMO)!r}).text == {SAID!r}
import onnxruntime
import huggingface_hub.utils
assert "torch" not in huggingface_hub.utils.build_hf_headers(token=False)["user-agent"]
"""
COMMANDS = {
    "help": [*CONURE, "--help"],
    "version": [*CONURE, "--version"],
    "models": [*CONURE, "models"],
    "doctor": [*CONURE, "doctor", "--json"],
    "keys": [*CONURE, "keys", "add", "phone", "--keys", "keys.json"],
    "transcribe": [*CONURE, "transcribe", str(DEMO), "--model", "tiny", "--output", "said.txt"],
    "transcribe several": [*CONURE, "transcribe", str(DEMO), str(DEMO), "--model", "tiny", "-f", "json"],
    "bench": [*CONURE, "bench", "live", "--model", "tiny", *("--streams", "1", "--seconds", "1", "--promise", "60000")],
    "bench clips": [
        *CONURE,
        "bench",
        "clips",
        "--model",
        "tiny",
        *("--at-once", "2", "--length", "11", "--seconds", "1"),
    ],
    "listen": [*CONURE, "listen", "--model", "tiny", "--file", str(DEMO), "--pace", "0"],
    "a program": [sys.executable, "-c", LIBRARY],
}


def run(audit: Audit, line: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        audit.command(line),
        cwd=audit.work,
        env=audit.environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def assert_silent(audit: Audit) -> None:
    assert audit.outside() == []
    assert [path for path in audit.written() if not path.startswith(OWN)] == []


@dataclass
class Watched:
    """A server under audit."""

    audit: Audit
    url: str
    process: subprocess.Popen[bytes]
    since: float

    def stop(self) -> None:
        for child in psutil.Process(self.process.pid).children():
            child.terminate()
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """It runs while the commands are tried."""
    audit = Audit(tmp_path_factory.mktemp("server"))
    line = audit.command([*CONURE, "serve", "--model", "tiny", "--device", "cpu", *FREE])
    told = audit.folder / "told"
    with told.open("wb") as file:
        process = subprocess.Popen(line, cwd=audit.work, env=audit.environment(), stderr=file)
    try:
        wait_for(lambda: "\nready" in told.read_text() or process.poll() is not None, what="a server that is ready")
        web = {name: f"{host}:{port}" for name, host, port in DOORS.findall(told.read_text())}["web"]
        watched = Watched(audit, web, process, time.monotonic())
        yield watched
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):  # strace does not take it along
                child.kill()
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_makes_no_connection(name: str, server: Watched, tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    done = run(audit, COMMANDS[name], CONURE_MODEL="tiny")
    assert done.returncode == 0, done.stderr
    assert_silent(audit)


def test_a_stream_connects_to_the_server_only_which_makes_no_connection(server: Watched, tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    done = run(audit, [*CONURE, "stream", str(DEMO), "--url", f"ws://{server.url}", "--pace", "0"])
    assert done.returncode == 0, done.stderr
    assert "seven" in done.stdout
    assert_silent(audit)
    time.sleep(max(AFTER_SECONDS - (time.monotonic() - server.since), 0))
    server.stop()
    assert_silent(server.audit)


@pytest.mark.parametrize("first", ["conure", "conure.client", "bench", "tools"])
def test_any_order_of_imports(first: str, tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    names = {name: f"os.environ.get({name!r})" for name in TELEMETRY_VARIABLES}
    line = f"import os, {first}, onnxruntime; print({', '.join(names.values())})"
    done = run(audit, [sys.executable, "-c", line], PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    assert done.stdout.split() == list(TELEMETRY_VARIABLES.values()), done.stderr
    assert_silent(audit)


def test_variables_that_are_set_are_kept(tmp_path: Path) -> None:
    line = "import os, conure; print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['ORT_DISABLE_TELEMETRY'])"
    done = run(Audit(tmp_path), [sys.executable, "-c", line], HF_HUB_DISABLE_TELEMETRY="0")
    assert done.stdout.split() == ["0", "1"]


def test_the_audit_sees_names_and_addresses(tmp_path: Path) -> None:
    tried = """if True:
        import socket
        for ask in (
            lambda: socket.getaddrinfo("conure.invalid", 443),
            lambda: socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9)),
            lambda: socket.socket(type=socket.SOCK_DGRAM).connect(("127.0.0.1", 9)),
        ):
            try:
                ask()
            except OSError:
                pass
    """
    audit = Audit(tmp_path)
    assert run(audit, [sys.executable, "-W", "ignore", "-c", tried]).returncode == 0
    seen = audit.outside()
    assert any("192.0.2.1" in line for line in seen)
    assert any("192.0.2.1" not in line for line in seen)
    assert not any('"127.0.0.1"' in line for line in seen)
