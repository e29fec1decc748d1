"""Callbacks: sent, retried, dropped, and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conure.errors import AudioNotFound, BadOption, Busy
from conure.service.callbacks import MAX_PENDING, Callback, Callbacks
from conure.service.safe_http import SafeHttp, parse_url

BODY = b'{"fine": true}'


class Site(BaseHTTPRequestHandler):
    """Fails as often as it was told to."""

    asked: list[tuple[str, str, bytes]]
    failures: int

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.command, self.headers["Content-Type"], body))
        self.send_response(200 if len(self.asked) > self.failures else 503)
        self.end_headers()

    do_POST = do_PUT = _take  # noqa: N815  names of the library

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked, Site.failures = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/later"
        server.shutdown()
        serving.join()


async def _body() -> bytes:
    return BODY


def owed(url: str, method: str = "POST", delays: Sequence[float] = (0.0, 0.0)) -> list[str]:
    """All that there was to close is closed before it is sent."""
    closed: list[str] = []

    async def run() -> None:
        callbacks = Callbacks(SafeHttp(private=True), delays=delays)
        async with AsyncExitStack() as needed:
            needed.callback(closed.append, "file")
            callbacks.schedule(Callback(parse_url(url), method), _body, needed)
        assert closed == []
        await callbacks.drain(60)
        await callbacks.close()

    asyncio.run(run())
    return closed


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_it_is_sent(site: str, method: str) -> None:
    assert owed(site, method) == ["file"]
    assert Site.asked == [(method, "application/json", BODY)]


def test_it_is_tried_again(site: str, caplog: pytest.LogCaptureFixture) -> None:
    Site.failures = 2
    owed(site)
    assert len(Site.asked) == 3
    assert caplog.messages == []


def test_it_is_given_up(site: str, caplog: pytest.LogCaptureFixture) -> None:
    Site.failures = 9
    owed(site + "?secret")
    assert len(Site.asked) == 3
    assert caplog.messages == ["dropping a callback to 127.0.0.1: HTTP status 503"]


def test_an_unreachable_address(caplog: pytest.LogCaptureFixture) -> None:
    owed("http://127.0.0.1:1/")
    (message,) = caplog.messages
    assert message.startswith("dropping a callback to 127.0.0.1: ")


def test_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def fail() -> bytes:
            raise RuntimeError("broken")

        callbacks = Callbacks(SafeHttp(private=True))
        callbacks.schedule(Callback(parse_url("http://127.0.0.1:1/")), fail, AsyncExitStack())
        await callbacks.drain(60)

    asyncio.run(run())
    assert caplog.messages == ["a callback to 127.0.0.1 failed"]


def test_addresses_are_looked_at() -> None:
    callbacks = Callbacks(SafeHttp())
    with pytest.raises(BadOption, match="public"):
        asyncio.run(callbacks.check_url(Callback(parse_url("http://127.0.0.1:1/"))))
    with pytest.raises(AudioNotFound):
        asyncio.run(callbacks.check_url(Callback(parse_url("http://nobody.invalid/"))))


def test_they_are_bounded_and_given_up_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> list[str]:
        async def forever() -> bytes:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        closed: list[str] = []
        callbacks, callback = Callbacks(SafeHttp()), Callback(parse_url("http://example.com/"))
        for _ in range(MAX_PENDING):
            needed = AsyncExitStack()
            needed.callback(closed.append, "file")
            callbacks.schedule(callback, forever, needed)
        with pytest.raises(Busy, match=str(MAX_PENDING)):
            callbacks.schedule(callback, forever, AsyncExitStack())
        await callbacks.drain(0.01)
        with pytest.raises(Busy, match="about to stop"):
            callbacks.schedule(callback, forever, AsyncExitStack())
        await callbacks.close()
        return closed

    assert asyncio.run(run()) == ["file"] * MAX_PENDING
    assert caplog.messages == [f"{MAX_PENDING} callbacks are not sent"]
