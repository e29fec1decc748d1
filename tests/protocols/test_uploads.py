"""Recordings that a server has no room for: the disk is full, or there are too many. Each door says so as its clients
expect it, and takes the next one when there is room again."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.servers import DEMO, PATIENCE, SAID, TINY_MODEL, Server, started, wait_for

ROOM = 2**20
"""Bytes of the largest file that the server may write."""
LARGE = DEMO.read_bytes() + bytes(24 * 2**20)
"""More than is kept in memory."""
SETTINGS = {"CONURE_MAX_UPLOAD_MB": "100", "CONURE_MAX_UPLOADS": "2", "CONURE_DRAIN_SECONDS": "2"}
BOUNDARY = "of-the-form"


def form(recording: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'.encode()
    body = head + recording + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def plain(recording: bytes) -> tuple[bytes, dict[str, str]]:
    return recording, {}


DOORS = {
    "/v1/transcribe": plain,
    "/v1/listen": plain,
    "/v1/audio/transcriptions": form,
    "/v2/transcribe": form,
}


def sent(server: Server, path: str, recording: bytes) -> tuple[int, Any, dict[str, str]]:
    body, headers = DOORS[path](recording)
    connection = http.client.HTTPConnection(server.host, server.web, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), {name.lower(): value for name, value in answer.getheaders()}


def full_disk(server: Server) -> None:
    """No file of its process may be larger: it hears EFBIG where a full disk would say ENOSPC."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    with started(str(TINY_MODEL), cache, settings=SETTINGS) as running:
        full_disk(running)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors
        assert "cannot write a recording to" in running.errors


@pytest.mark.parametrize("path", DOORS)
def test_a_full_disk_is_told_and_passes(server: Server, path: str) -> None:
    before = server.metric('conure_refused_total{reason="storage_full"}')
    status, body, headers = sent(server, path, LARGE)
    assert status == 507, body
    assert int(headers["retry-after"]) > 0
    assert "no disk space" in json.dumps(body)
    assert server.metric('conure_refused_total{reason="storage_full"}') > before
    status, body, _ = sent(server, path, DEMO.read_bytes())
    assert status == 200
    assert SAID in json.dumps(body)


def test_recordings_at_once_are_bounded(server: Server) -> None:
    """What is being sent takes a place, though nothing of it was read yet."""
    begun = [http.client.HTTPConnection(server.host, server.web, timeout=PATIENCE) for _ in range(2)]
    for connection in begun:
        connection.putrequest("POST", "/v1/transcribe")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"a")
    wait_for(lambda: sent(server, "/v1/listen", DEMO.read_bytes())[0] == 503)
    for path in DOORS:
        status, body, headers = sent(server, path, DEMO.read_bytes())
        assert (status, "recordings are already" in json.dumps(body)) == (503, True)
        assert int(headers["retry-after"]) > 0
    assert server.metric('conure_refused_total{reason="uploads"}') >= len(DOORS)
    for connection in begun:
        connection.close()
    for path in DOORS:
        wait_for(lambda path=path: sent(server, path, DEMO.read_bytes())[0] == 200)


def test_without_a_folder_for_temporary_files(cache: Path, tmp_path: Path) -> None:
    """It was there at the start, and is gone: the same as a full disk."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    with started(str(TINY_MODEL), cache, settings=SETTINGS | {"TMPDIR": str(folder)}) as running:
        assert sent(running, "/v1/transcribe", LARGE)[0] == 200
        shutil.rmtree(folder)
        assert sent(running, "/v1/transcribe", LARGE)[0] == 507
        folder.mkdir()
        status, body, _ = sent(running, "/v1/transcribe", LARGE)
        assert (status, body["text"]) == (200, SAID)
        assert running.stop() == 0
