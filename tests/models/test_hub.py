"""Downloads from a small server with the hub's protocol: chosen files, resume, cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from conure.errors import ModelNotFound, UnknownModel
from conure.models import hub
from conure.models.hub import fetch, is_cached
from conure.models.hub_repository import HubRepository, is_hub_id, parse_pins
from tests.full_disk import most_bytes_a_file

WEIGHTS = bytes(range(256)) * 4096


@dataclass
class Hub:
    """Repositories by id, each with one commit; a log of requests; and a connection that may break."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    break_downloads: int = 0
    damage: bool = False
    endpoint: str = ""

    def fetched(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/models/"):
            self.send_info(path.removeprefix("/api/models/"))
            return
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.hub.repositories.get(repository, {})
        if name not in files or revision not in ("main", "v1", COMMIT):
            self.send_failure("EntryNotFound")
        else:
            self.send_file(files[name])

    def send_info(self, path: str) -> None:
        repository, _, revision = path.partition("/revision/")
        if repository not in self.hub.repositories:
            self.send_failure("RepoNotFound", 401)
        elif revision not in ("", "main", "v1"):
            self.send_failure("RevisionNotFound")
        else:
            files = self.hub.repositories[repository]
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            self.send_body(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def send_failure(self, code: str, status: int = 404) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_body(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, data: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.break_downloads and len(data) > 1000:
            self.hub.break_downloads -= 1
            self.wfile.write(data[start : start + len(data) // 3])
            self.close_connection = True
        else:
            self.wfile.write(bytes(len(data) - start) if self.hub.damage else data[start:])


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignores disconnects, which some tests provoke."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()
    listener = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": state}))
    state.endpoint = f"http://127.0.0.1:{listener.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "MIN_LARGE_BYTES", 2**16)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    huggingface_hub.close_session()
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def repository(tmp_path: Path) -> HubRepository:
    return HubRepository("org/model", cache=tmp_path / "cache")


def test_only_the_archive_is_downloaded(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"README.md": b"x", "model.nemo": WEIGHTS, "pytorch_model.bin": b"pickle"}
    path = fetch(repository)
    assert path.name == "model.nemo"
    assert path.read_bytes() == WEIGHTS
    assert server.fetched() == ["model.nemo"]


def test_safetensors_come_with_their_json_and_tokenizer(server: Hub, repository: HubRepository) -> None:
    files = ["config.json", "tokenizer.json", "model.safetensors", "processor_config.json"]
    server.repositories["org/model"] = dict.fromkeys([*files, "pytorch_model.bin", "flax.msgpack"], b"{}")
    folder = fetch(repository)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_all_shards_are_downloaded_and_required(server: Hub, repository: HubRepository) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
    files = dict.fromkeys(["config.json", "tokenizer.json", *shards], b"{}")
    server.repositories["org/model"] = files | {"model.safetensors.index.json": index}
    folder = fetch(repository)
    assert is_cached(repository)
    (folder / shards[1]).unlink()
    assert not is_cached(repository)


def test_a_second_call_sends_no_request(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    assert not is_cached(repository)
    first = fetch(repository)
    server.requests.clear()
    assert is_cached(repository)
    assert fetch(repository) == first
    assert server.requests == []


def test_progress_counts_to_the_end(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    seen: list[tuple[int, int | None]] = []
    fetch(repository, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_download_is_resumed(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    server.break_downloads = 2
    seen: list[int] = []
    path = fetch(repository, lambda done, _: seen.append(done))
    assert path.read_bytes() == WEIGHTS
    starts = [int(span[6:-1]) for method, _, span in server.requests if method == "GET" and span]
    assert 0 < starts[0] < starts[1] < len(WEIGHTS)
    assert seen == sorted(seen)
    assert seen[-1] == len(WEIGHTS)


def test_a_cancelled_download_is_resumed_by_the_next_call(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}

    def cancel(done: int, _: int | None) -> None:
        if done > len(WEIGHTS) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(repository, cancel)
    assert not is_cached(repository)
    server.requests.clear()
    assert fetch(repository).read_bytes() == WEIGHTS
    assert [span for method, _, span in server.requests if method == "GET" and span]


def test_a_damaged_download_is_deleted(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    server.damage = True
    with pytest.raises(ModelNotFound, match="damaged"):
        fetch(repository)
    server.damage = False
    assert fetch(repository).read_bytes() == WEIGHTS


def test_large_and_small_files_are_in_the_same_cache(server: Hub, repository: HubRepository) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": WEIGHTS}
    server.repositories["org/model"] = files
    folder = fetch(repository)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert sorted(server.fetched()) == sorted(files)


def test_a_revision_is_pinned(server: Hub, tmp_path: Path) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    pinned = HubRepository("org/model", "v1", tmp_path)
    assert fetch(pinned).read_bytes() == WEIGHTS
    assert any("/resolve/v1/" in path for _, path, _ in server.requests)
    assert is_cached(pinned)
    assert not is_cached(HubRepository("org/model", None, tmp_path))


def test_an_unknown_revision_is_named(server: Hub, tmp_path: Path) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    with pytest.raises(ModelNotFound, match="no revision 'v9'"):
        fetch(HubRepository("org/model", "v9", tmp_path))


def test_an_unknown_repository_is_named(server: Hub, repository: HubRepository) -> None:
    with pytest.raises(UnknownModel, match="org/model"):
        fetch(repository)


def test_a_repository_without_a_checkpoint_is_refused(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(ModelNotFound, match="neither"):
        fetch(repository)
    assert server.fetched() == []


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_the_hint_when_offline(
    server: Hub, repository: HubRepository, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    if switch == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        repository = HubRepository(repository.repository, None, repository.cache, offline=True)
    with pytest.raises(ModelNotFound) as caught:
        fetch(repository)
    assert server.requests == []
    hint = caught.value.hint or ""
    assert "conure models pull org/model" in hint
    assert "--model tiny" in hint
    assert "trying things out" in hint


def test_offline_still_reads_the_cache(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    path = fetch(repository)
    assert fetch(HubRepository(repository.repository, None, repository.cache, offline=True)) == path


def test_the_hint_without_a_network(server: Hub, repository: HubRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFound, match="cannot be downloaded") as caught:
        fetch(repository)
    assert "\n" not in str(caught.value)
    assert "copy it here" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.nemo", "other.nemo", "config.json"], ["model.nemo"]),
        (["old.nemo"], ["old.nemo"]),
        (["a.nemo", "b.nemo"], []),
        (["sub/model.nemo"], []),
        (["config.json", "model.safetensors"], []),
    ],
)
def test_files_of_a_checkpoint(files: list[str], chosen: list[str]) -> None:
    assert hub._choose(HubRepository("org/model"), files) == chosen


def test_several_archives_are_listed(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"a.nemo": WEIGHTS, "b.nemo": WEIGHTS[::-1]}
    with pytest.raises(ModelNotFound, match=r"several checkpoints: a\.nemo, b\.nemo") as caught:
        fetch(repository)
    assert "org/model@a.nemo" in (caught.value.hint or "")
    one = replace(repository, file="b.nemo")
    assert fetch(one).read_bytes() == WEIGHTS[::-1]
    assert server.fetched() == ["b.nemo"]
    with pytest.raises(ModelNotFound, match=r"has no c\.nemo") as caught:
        fetch(replace(repository, file="c.nemo"))
    assert "a.nemo, b.nemo" in (caught.value.hint or "")


def test_a_full_disk_is_named_with_the_space_needed(server: Hub, repository: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    is_raised = pytest.raises(ModelNotFound, match=r"no space is left in .* needed, .* free")
    with most_bytes_a_file(len(WEIGHTS) // 2), is_raised:
        fetch(repository)
    assert fetch(repository).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("org/model", ("org/model", None, None)),
        ("org/model@v1", ("org/model", "v1", None)),
        ("org/model@a.nemo", ("org/model", None, "a.nemo")),
        ("org/model@v1@a.nemo", ("org/model", "v1", "a.nemo")),
        ("parakeet@", ("parakeet", None, None)),
    ],
)
def test_revisions_and_files_are_pinned(name: str, parts: tuple[str, str | None, str | None]) -> None:
    assert parse_pins(name) == parts


def test_hub_ids() -> None:
    assert is_hub_id("nvidia/parakeet-tdt-0.6b-v3")
    assert not any(map(is_hub_id, ["parakeet", "./a/b", "/a/b", "a/b/c", "a/b.nemo", "../b", "a/", ""]))
