"""Full disk and too many recordings: each protocol responds in its format, and accepts the next recording later."""

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
"""Maximum size of a file that the server may write."""
LARGE = DEMO.read_bytes() + bytes(24 * 2**20)
"""Larger than the limit in memory."""
SETTINGS = {"CONURE_MAX_UPLOAD_MB": "100", "CONURE_MAX_UPLOADS": "2", "CONURE_DRAIN_SECONDS": "2"}
BOUNDARY = "of-the-form"


def form(recording: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'.encode()
    body = head + recording + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def plain(recording: bytes) -> tuple[bytes, dict[str, str]]:
    return recording, {}


ENDPOINTS = {
    "/v1/transcribe": plain,
    "/v1/listen": plain,
    "/v1/audio/transcriptions": form,
    "/v2/transcribe": form,
}


def upload(server: Server, path: str, recording: bytes) -> tuple[int, Any, dict[str, str]]:
    body, headers = ENDPOINTS[path](recording)
    connection = http.client.HTTPConnection(server.host, server.web, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), {name.lower(): value for name, value in answer.getheaders()}


def limit_file_size(server: Server) -> None:
    """Limits the size of the process's files: writes fail with EFBIG, as a full disk fails with ENOSPC."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    with started(str(TINY_MODEL), cache, settings=SETTINGS) as running:
        limit_file_size(running)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.errors
        assert "cannot write a recording to" in running.errors


@pytest.mark.parametrize("path", ENDPOINTS)
def test_full_disk(server: Server, path: str) -> None:
    before = server.metric('conure_refused_total{reason="storage_full"}')
    status, body, headers = upload(server, path, LARGE)
    assert status == 507, body
    assert int(headers["retry-after"]) > 0
    assert "no disk space" in json.dumps(body)
    assert server.metric('conure_refused_total{reason="storage_full"}') > before
    status, body, _ = upload(server, path, DEMO.read_bytes())
    assert status == 200
    assert SAID in json.dumps(body)


def test_concurrent_recordings_limit(server: Server) -> None:
    """An upload counts from its first byte."""
    pending = [http.client.HTTPConnection(server.host, server.web, timeout=PATIENCE) for _ in range(2)]
    for connection in pending:
        connection.putrequest("POST", "/v1/transcribe")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"a")
    wait_for(lambda: upload(server, "/v1/listen", DEMO.read_bytes())[0] == 503)
    for path in ENDPOINTS:
        status, body, headers = upload(server, path, DEMO.read_bytes())
        assert (status, "recordings are already" in json.dumps(body)) == (503, True)
        assert int(headers["retry-after"]) > 0
    assert server.metric('conure_refused_total{reason="uploads"}') >= len(ENDPOINTS)
    for connection in pending:
        connection.close()
    for path in ENDPOINTS:
        wait_for(lambda path=path: upload(server, path, DEMO.read_bytes())[0] == 200)


def test_missing_temporary_folder(cache: Path, tmp_path: Path) -> None:
    """The folder is deleted while the server runs: the same error as for a full disk."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    with started(str(TINY_MODEL), cache, settings=SETTINGS | {"TMPDIR": str(folder)}) as running:
        assert upload(running, "/v1/transcribe", LARGE)[0] == 200
        shutil.rmtree(folder)
        assert upload(running, "/v1/transcribe", LARGE)[0] == 507
        folder.mkdir()
        status, body, _ = upload(running, "/v1/transcribe", LARGE)
        assert (status, body["text"]) == (200, SAID)
        assert running.stop() == 0
