"""Downloads, against a small server that speaks the hub's protocol: what is fetched, resumed, found again."""

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
    """Repositories by id, each of one commit; what was asked for; and a line that may break."""

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
        """A client that hangs up is what some tests are about."""


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
    monkeypatch.setattr(hub, "LARGE_BYTES", 2**16)
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
def wanted(tmp_path: Path) -> HubRepository:
    return HubRepository("org/model", cache=tmp_path / "cache")


def test_only_the_archive_is_fetched(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"README.md": b"x", "model.nemo": WEIGHTS, "pytorch_model.bin": b"pickle"}
    path = fetch(wanted)
    assert path.name == "model.nemo"
    assert path.read_bytes() == WEIGHTS
    assert server.fetched() == ["model.nemo"]


def test_safetensors_come_with_their_json_and_tokenizer(server: Hub, wanted: HubRepository) -> None:
    files = ["config.json", "tokenizer.json", "model.safetensors", "processor_config.json"]
    server.repositories["org/model"] = dict.fromkeys([*files, "pytorch_model.bin", "flax.msgpack"], b"{}")
    folder = fetch(wanted)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_all_shards_are_fetched_and_needed(server: Hub, wanted: HubRepository) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
    files = dict.fromkeys(["config.json", "tokenizer.json", *shards], b"{}")
    server.repositories["org/model"] = files | {"model.safetensors.index.json": index}
    folder = fetch(wanted)
    assert is_cached(wanted)
    (folder / shards[1]).unlink()
    assert not is_cached(wanted)


def test_the_second_time_nothing_is_asked(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    assert not is_cached(wanted)
    first = fetch(wanted)
    server.requests.clear()
    assert is_cached(wanted)
    assert fetch(wanted) == first
    assert server.requests == []


def test_progress_counts_to_the_end(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    seen: list[tuple[int, int | None]] = []
    fetch(wanted, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_line_is_taken_up_where_it_broke(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    server.break_downloads = 2
    seen: list[int] = []
    path = fetch(wanted, lambda done, _: seen.append(done))
    assert path.read_bytes() == WEIGHTS
    starts = [int(span[6:-1]) for method, _, span in server.requests if method == "GET" and span]
    assert 0 < starts[0] < starts[1] < len(WEIGHTS)
    assert seen == sorted(seen)
    assert seen[-1] == len(WEIGHTS)


def test_a_download_given_up_is_resumed_by_the_next_call(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}

    def give_up(done: int, _: int | None) -> None:
        if done > len(WEIGHTS) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, give_up)
    assert not is_cached(wanted)
    server.requests.clear()
    assert fetch(wanted).read_bytes() == WEIGHTS
    assert [span for method, _, span in server.requests if method == "GET" and span]


def test_a_damaged_download_is_thrown_away(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    server.damage = True
    with pytest.raises(ModelNotFound, match="damaged"):
        fetch(wanted)
    server.damage = False
    assert fetch(wanted).read_bytes() == WEIGHTS


def test_a_large_and_a_small_file_lie_in_the_same_cache(server: Hub, wanted: HubRepository) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": WEIGHTS}
    server.repositories["org/model"] = files
    folder = fetch(wanted)
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


def test_an_unknown_repository_is_named(server: Hub, wanted: HubRepository) -> None:
    with pytest.raises(UnknownModel, match="org/model"):
        fetch(wanted)


def test_a_repository_without_a_checkpoint_is_refused(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(ModelNotFound, match="neither"):
        fetch(wanted)
    assert server.fetched() == []


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_offline_says_what_to_do(
    server: Hub, wanted: HubRepository, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    if switch == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        wanted = HubRepository(wanted.repository, None, wanted.cache, offline=True)
    with pytest.raises(ModelNotFound) as caught:
        fetch(wanted)
    assert server.requests == []
    hint = caught.value.hint or ""
    assert "conure models pull org/model" in hint
    assert "--model tiny" in hint
    assert "trying things out" in hint


def test_offline_still_reads_the_cache(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    path = fetch(wanted)
    assert fetch(HubRepository(wanted.repository, None, wanted.cache, offline=True)) == path


def test_without_a_network_the_error_says_what_to_do(
    server: Hub, wanted: HubRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFound, match="cannot be downloaded") as caught:
        fetch(wanted)
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
def test_which_files_make_a_checkpoint(files: list[str], chosen: list[str]) -> None:
    assert hub._choose(HubRepository("org/model"), files) == chosen


def test_one_of_several_archives_is_named(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"a.nemo": WEIGHTS, "b.nemo": WEIGHTS[::-1]}
    with pytest.raises(ModelNotFound, match=r"several checkpoints: a\.nemo, b\.nemo") as caught:
        fetch(wanted)
    assert "org/model@a.nemo" in (caught.value.hint or "")
    one = replace(wanted, file="b.nemo")
    assert fetch(one).read_bytes() == WEIGHTS[::-1]
    assert server.fetched() == ["b.nemo"]
    with pytest.raises(ModelNotFound, match=r"has no c\.nemo") as caught:
        fetch(replace(wanted, file="c.nemo"))
    assert "a.nemo, b.nemo" in (caught.value.hint or "")


def test_a_full_disk_is_named_with_what_is_needed(server: Hub, wanted: HubRepository) -> None:
    server.repositories["org/model"] = {"model.nemo": WEIGHTS}
    told = pytest.raises(ModelNotFound, match=r"no space is left in .* needed, .* free")
    with most_bytes_a_file(len(WEIGHTS) // 2), told:
        fetch(wanted)
    assert fetch(wanted).read_bytes() == WEIGHTS


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


def test_what_a_hub_id_looks_like() -> None:
    assert is_hub_id("nvidia/parakeet-tdt-0.6b-v3")
    assert not any(map(is_hub_id, ["parakeet", "./a/b", "/a/b", "a/b/c", "a/b.nemo", "../b", "a/", ""]))
