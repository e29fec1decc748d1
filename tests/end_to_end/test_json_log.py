"""Every line of stderr of a server with a JSON log is an object."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from tests.protocols.servers import PATIENCE, ROOT

FAULTS = """
import logging, sys, threading, warnings
from conure import log
from conure.json_stderr import redirect_stderr

log.configure("quiet", as_json=True)
redirect_stderr()
warnings.simplefilter("always")
warnings.warn("odd")
logging.getLogger("somebody.else").warning("a line\\nand another \\x1b[31m")
print("bare", file=sys.stderr)
print("two", "parts", "and\\nno end", file=sys.stderr, end="")
thread = threading.Thread(target=lambda: 1 / 0, name="divider")
thread.start()
thread.join()
class Odd:
    def __del__(self):
        raise KeyError("gone")
odd = Odd()
del odd
logging.getLogger("conure.x").error("failed", exc_info=ValueError("why"))
raise RuntimeError("the last word")
"""


def objects(written: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.splitlines()]


def test_every_way_to_write(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    told = [dict(line["log"]) for line in objects(done.stderr)]  # type: ignore[call-overload]
    messages = "\n".join(str(one["message"]) for one in told)
    for part in ("odd", "a line and another \\x1b[31m", "bare", "two parts and", "divider", "gone", "the last word"):
        assert part in messages
    assert any("ValueError: why" in str(one.get("traceback")) for one in told)
    assert any("ZeroDivisionError" in str(one.get("traceback")) for one in told)


def test_a_server_with_malformed_requests(tmp_path: Path, cache: Path) -> None:
    ports = [part for name in ("port", "tcp", "grpc", "wyoming", "status") for part in (f"--{name}", "free")]
    ports = [name if name in ("--port", "free") else f"{name}-port" for name in ports]
    command = [sys.executable, "-m", "conure", "serve", "--model", "tiny", "--device", "cpu", "--json", *ports]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CONURE_CACHE": str(cache)}
    lines: list[str] = []
    with subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        web = 0
        for line in server.stderr:
            lines.append(line)
            if "web http://127.0.0.1:" in line:
                web = int(line.partition("web http://127.0.0.1:")[2].partition(",")[0])
            if "ready   in" in line:
                break
        reading = threading.Thread(target=lambda: lines.extend(server.stderr or ()))
        reading.start()
        annoy(web)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        reading.join(PATIENCE)
    told = objects("".join(lines))
    assert any("TLS" in json.dumps(line) for line in told)


STRANGE = (
    b"\0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
)


def annoy(web: int) -> None:
    for body in (b"--x\r\nbroken", b"--y--\r\n\r\n", b"--x--\r\nmore behind it", b"\xff" * 100):
        request = urllib.request.Request(f"http://127.0.0.1:{web}/v1/audio/transcriptions", data=body)
        request.add_header("Content-Type", "multipart/form-data; boundary=x")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except urllib.error.HTTPError as refused:
            refused.close()
    for said in (
        b"\0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", web), timeout=PATIENCE) as connection:
            connection.sendall(said)
            connection.makefile("rb").read()
