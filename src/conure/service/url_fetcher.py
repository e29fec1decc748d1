"""Downloads recordings from URLs of clients into a file."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import httpx2

from conure.errors import AudioNotFound, AudioTooLong, BadOption, Busy
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.safe_http import SafeHttp, parse_url

__all__ = ["UrlFetcher"]

MAX_CONCURRENT = 64
"""Downloads of all processes of the server; more are refused."""
MAX_REDIRECTS = 5
MAX_SECONDS = 600.0
"""Of one download, with redirects."""
BLOCK_BYTES = 2**16


class UrlFetcher:
    def __init__(
        self, http: SafeHttp, identity: ProcessIdentity = SINGLE_PROCESS, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._http = http
        self._max_seconds = max_seconds
        self._max_concurrent = identity.share_of(MAX_CONCURRENT)
        self._running = 0

    async def fetch(self, url: str, into: BinaryIO, max_bytes: int) -> None:
        """Raises BadOption for a URL that may not be fetched, AudioNotFound, AudioTooLong and Busy."""
        if self._running >= self._max_concurrent:
            raise Busy(f"too many recordings are being fetched ({self._running})", "retry later")
        self._running += 1
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._follow(parse_url(url), into, max_bytes)
        except TimeoutError:
            raise AudioNotFound(
                f"the recording was not received in {self._max_seconds:g} s", "send the bytes"
            ) from None
        finally:
            self._running -= 1

    async def _follow(self, url: httpx2.URL, into: BinaryIO, max_bytes: int) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with self._http.request("GET", url) as response:
                    if not response.has_redirect_location:
                        return await _save(response, url.host, into, max_bytes)
                    url = _next(url, response.headers["location"])
            except httpx2.TimeoutException:
                raise AudioNotFound(f"{url.host!r} does not respond", "retry, or send the bytes") from None
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
                raise AudioNotFound(f"{url.host!r} cannot be read: {reason}", "check the URL") from None
        raise AudioNotFound(f"the URL redirects more than {MAX_REDIRECTS} times", "use the final URL")


def _next(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        return parse_url(str(url.join(location)))
    except httpx2.InvalidURL:
        raise BadOption("the URL redirects to an invalid URL", "use the final URL") from None


async def _save(response: httpx2.Response, host: str, into: BinaryIO, max_bytes: int) -> None:
    if not response.is_success:
        raise AudioNotFound(f"{host!r} responds with {response.status_code} {response.reason_phrase}", "check the URL")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise AudioNotFound(f"{host!r} sends the recording with the encoding {encoding!r}", "send the bytes")
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    async for part in response.aiter_raw(BLOCK_BYTES):
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        into.write(part)


def _too_large(max_bytes: int) -> AudioTooLong:
    return AudioTooLong(f"the recording is larger than {max_bytes} bytes", "split it, or increase max_upload_mb")
