"""Recordings that clients name by their URL, streamed into a file."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import httpx2

from conure.errors import AudioNotFound, AudioTooLong, BadOption, Busy
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.safe_http import SafeHttp, parse_url

__all__ = ["UrlFetcher"]

MOST_AT_ONCE = 64
"""By all processes of the server; more are refused."""
MOST_REDIRECTS = 5
LONGEST = 600.0
"""Seconds for all of it."""
PART = 2**16


class UrlFetcher:
    def __init__(self, outside: SafeHttp, place: ProcessIdentity = SINGLE_PROCESS, longest: float = LONGEST) -> None:
        self._outside = outside
        self._longest = longest
        self._most = place.share_of(MOST_AT_ONCE)
        self._underway = 0

    async def fetch(self, url: str, into: BinaryIO, most_bytes: int) -> None:
        """Raises BadOption for a URL that may not be fetched, AudioNotFound, AudioTooLong and Busy."""
        if self._underway >= self._most:
            raise Busy(f"{self._underway} recordings are being fetched already", "try again in a while")
        self._underway += 1
        try:
            async with asyncio.timeout(self._longest):
                await self._follow(parse_url(url), into, most_bytes)
        except TimeoutError:
            raise AudioNotFound(f"the recording did not arrive within {self._longest:g} s", "send the bytes") from None
        finally:
            self._underway -= 1

    async def _follow(self, url: httpx2.URL, into: BinaryIO, most_bytes: int) -> None:
        for _ in range(MOST_REDIRECTS + 1):
            try:
                async with self._outside.request("GET", url) as answer:
                    if not answer.has_redirect_location:
                        return await _take(answer, url.host, into, most_bytes)
                    url = _next(url, answer.headers["location"])
            except httpx2.TimeoutException:
                raise AudioNotFound(f"{url.host!r} does not answer", "try again, or send the bytes") from None
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
                raise AudioNotFound(f"{url.host!r} cannot be read: {reason}", "check the URL") from None
        raise AudioNotFound(f"the URL redirects more than {MOST_REDIRECTS} times", "give the one that it leads to")


def _next(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        return parse_url(str(url.join(location)))
    except httpx2.InvalidURL:
        raise BadOption("the URL redirects to what is no URL", "give the one that it leads to") from None


async def _take(answer: httpx2.Response, host: str, into: BinaryIO, most_bytes: int) -> None:
    if not answer.is_success:
        raise AudioNotFound(f"{host!r} answers {answer.status_code} {answer.reason_phrase}", "check the URL")
    packed = answer.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise AudioNotFound(f"{host!r} sends it packed ({packed})", "send the bytes")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    size = 0
    async for part in answer.aiter_raw(PART):
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        into.write(part)


def _too_large(most_bytes: int) -> AudioTooLong:
    return AudioTooLong(f"the recording has more than {most_bytes} bytes", "cut it, or raise max_upload_mb")
