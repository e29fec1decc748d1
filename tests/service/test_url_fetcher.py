"""Downloads from a real server: redirects, refusals, and a single resolution of addresses."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from conure.errors import AudioNotFound, AudioTooLong, BadOption, Busy, ConureError
from conure.service.safe_http import SafeHttp, is_public, parse_url
from conure.service.url_fetcher import MAX_CONCURRENT, UrlFetcher

BODY = bytes(range(256)) * 300
MOST = len(BODY)
LOCAL = "127.0.0.1"
PUBLIC = "8.8.8.8"


class Site(BaseHTTPRequestHandler):
    """`/to/URL` redirects there; what has no length is closed at its end."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]
    release: threading.Event

    def do_GET(self) -> None:
        self.asked.append((self.headers["Host"], self.path))
        if self.path.startswith("/to/"):
            self._head(302, {"Location": self.path.removeprefix("/to/"), "Content-Length": "0"})
        elif self.path == "/fine":
            self._head(200, {"Content-Length": str(MOST)})
            self.wfile.write(BODY)
        elif self.path in ("/endless", "/slow"):
            self._head(200, {"Connection": "close"})
            self._go_on(BODY if self.path == "/endless" else b"")
        elif self.path == "/announced":
            self._head(200, {"Content-Length": str(MOST + 1)})
        elif self.path == "/packed":
            self._head(200, {"Content-Length": "3", "Content-Encoding": "gzip"})
        elif self.path == "/cut":
            self._head(200, {"Content-Length": "30", "Connection": "close"})
            self.wfile.write(b"too little")
        else:
            self._head(403, {"Content-Length": "0"})

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _go_on(self, part: bytes) -> None:
        self.close_connection = True
        if not part:
            self.release.wait(60)
        try:
            while part:
                self.wfile.write(part)
        except OSError:
            pass  # it has had enough

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Sites(ThreadingHTTPServer):
    request_queue_size = 2 * MAX_CONCURRENT  # where it is full, the kernel lets a connection wait for seconds


PATIENCE = 300.0
"""Seconds for a machine that has much else to do; one of this test's own answers at once."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conure.service.safe_http.CONNECT_SECONDS", PATIENCE)


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    Site.asked, Site.release = [], threading.Event()
    with Sites((LOCAL, 0), Site) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        Site.release.set()
        server.shutdown()
        serving.join()


class Names:
    """A resolver that is given; each look-up is noted."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._names = names

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._names:
            raise OSError
        return self._names[host]


def fetched(url: str, outside: SafeHttp, most: int = MOST, longest: float = 60.0) -> bytes:
    into = io.BytesIO()
    asyncio.run(UrlFetcher(outside, max_seconds=longest).fetch(url, into, most))
    return into.getvalue()


def at(site: ThreadingHTTPServer, path: str, host: str = "site") -> str:
    return f"http://{host}:{site.server_port}{path}"


def test_a_recording_comes_from_the_address_that_was_looked_at(site: ThreadingHTTPServer) -> None:
    names = Names(site=[LOCAL])
    assert fetched(at(site, "/fine"), SafeHttp(True, names.resolve)) == BODY
    assert names.asked == ["site"]
    assert Site.asked == [(f"site:{site.server_port}", "/fine")]


def test_the_next_address_is_tried_where_one_does_not_answer(site: ThreadingHTTPServer) -> None:
    names = Names(site=["127.0.0.2", LOCAL])
    assert fetched(at(site, "/fine"), SafeHttp(True, names.resolve)) == BODY


@pytest.mark.parametrize(
    "host", [LOCAL, "localhost", "2130706433", "0x7f.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_refused_in_any_spelling(site: ThreadingHTTPServer, host: str) -> None:
    with pytest.raises((BadOption, AudioNotFound)) as refused:
        fetched(at(site, "/fine", host), SafeHttp())
    assert isinstance(refused.value, BadOption), refused.value
    assert Site.asked == []


def test_a_name_that_leads_inside_is_refused(site: ThreadingHTTPServer) -> None:
    names = Names(site=[LOCAL, "10.0.0.1", "fe80::1%lo"])
    with pytest.raises(BadOption, match="not on the public network") as refused:
        fetched(at(site, "/fine"), SafeHttp(False, names.resolve))
    assert LOCAL not in str(refused.value)
    assert Site.asked == []


def test_only_public_addresses_of_a_name_are_used() -> None:
    names = Names(site=["10.0.0.1", PUBLIC, LOCAL])
    assert asyncio.run(SafeHttp(False, names.resolve).resolve_allowed(parse_url("https://site/a"))) == [PUBLIC]


def test_redirects_are_followed_and_looked_at_each(site: ThreadingHTTPServer) -> None:
    names = Names(site=[LOCAL], other=[LOCAL])
    other = at(site, "/fine", "other")
    assert fetched(at(site, f"/to/{other}"), SafeHttp(True, names.resolve)) == BODY
    assert fetched(at(site, "/to//fine"), SafeHttp(True, names.resolve)) == BODY
    assert names.asked == ["site", "other", "site", "site"]


def test_a_redirect_inside_is_refused(site: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site itself passes for public here, and nothing else does."""
    monkeypatch.setattr("conure.service.safe_http.is_public", lambda address: str(address) == LOCAL)
    names = Names(site=[LOCAL], inside=["127.0.0.2"], metadata=["169.254.169.254"])
    for url in (at(site, "/fine", "inside"), "http://metadata/latest", "file:///etc/passwd", "gopher://site/"):
        with pytest.raises(BadOption):
            fetched(at(site, f"/to/{url}"), SafeHttp(False, names.resolve))
    assert {path for _, path in Site.asked if not path.startswith("/to/")} == set()


def test_redirects_end(site: ThreadingHTTPServer) -> None:
    site_itself = at(site, "")
    with pytest.raises(AudioNotFound, match="more than 5 times"):
        fetched(site_itself + f"/to/{site_itself}/to/" * 7 + "fine", SafeHttp(True, Names(site=[LOCAL]).resolve))
    assert len(Site.asked) == 6


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/forbidden", AudioNotFound, "403"),
        ("/packed", AudioNotFound, "gzip"),
        ("/cut", AudioNotFound, "cannot be read"),
        ("/announced", AudioTooLong, str(MOST)),
        ("/endless", AudioTooLong, str(MOST)),
    ],
)
def test_failed_downloads(site: ThreadingHTTPServer, path: str, error: type[ConureError], words: str) -> None:
    with pytest.raises(error, match=words):
        fetched(at(site, path), SafeHttp(True, Names(site=[LOCAL]).resolve))


def test_a_silent_host_times_out(site: ThreadingHTTPServer) -> None:
    with pytest.raises(AudioNotFound, match="does not respond"):
        fetched(at(site, "/slow"), SafeHttp(True, Names(site=[LOCAL]).resolve, idle=0.2))
    with pytest.raises(AudioNotFound, match="not received in"):
        fetched(at(site, "/slow"), SafeHttp(True, Names(site=[LOCAL]).resolve), longest=0.2)


def test_unknown_and_unreachable_hosts(site: ThreadingHTTPServer) -> None:
    names = Names(site=["127.0.0.2"])
    with pytest.raises(AudioNotFound, match="unknown host 'elsewhere'"):
        fetched("https://elsewhere/a.wav", SafeHttp(True, names.resolve))
    with pytest.raises(AudioNotFound, match="'site' cannot be read"):
        fetched(at(site, "/fine"), SafeHttp(True, names.resolve))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.wav",
        "//site/a",
        "ftp://site/a",
        "file:///etc/passwd",
        "http:///a",
        "http://site:0/",
        "http://a:99999/",
        "http://[::1/",
        "\0",
    ],
)
def test_invalid_urls(url: str) -> None:
    with pytest.raises(BadOption):
        parse_url(url)


def test_more_at_once_are_refused(site: ThreadingHTTPServer) -> None:
    async def crowd() -> list[object]:
        fetcher = UrlFetcher(SafeHttp(True, Names(site=[LOCAL]).resolve, idle=PATIENCE))
        tasks = [fetcher.fetch(at(site, "/fine"), io.BytesIO(), MOST) for _ in range(MAX_CONCURRENT + 1)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    found = asyncio.run(crowd())
    assert [type(each) for each in found if each is not None] == [Busy]


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"])
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:1::"),
        *("192.0.0.1", "192.0.0.9", "192.0.0.192", "192.88.99.1", "192.31.196.1", "100.100.100.200", "168.63.129.16"),
        *("203.0.113.1", "198.51.100.1", "::ffff:168.63.129.16", "64:ff9b::c000:c0", "2002:a83f:8110::"),
        *("64:ff9b:1::8.8.8.8", "100::1", "2001:1::1", "2001:20::1", "3fff::1", "5f00::1", "4000::1", "fd00:ec2::254"),
        *("fc00::1", "fd00::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "2001:db8::1"),
    ],
)
def test_addresses_that_are_not(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_public(ip_address(address))
    for kind in (IPv4Address, IPv6Address):  # Python's own opinion changes with its versions
        monkeypatch.setattr(kind, "is_global", True)
    assert not is_public(ip_address(address))
