"""Requests to addresses that clients name: never to this machine or the networks around it, unless that is allowed.

    URL -> host, port -> addresses -> those that are public -> a connection to the very address that was looked at

The name is resolved here, once a request: a second look-up could tell another address than the one that was judged. So
a redirect is another request, and how an address was spelled makes no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx2

from conure.errors import AudioNotFound, BadOption

__all__ = ["SafeHttp", "Resolver", "parse_url", "is_public"]

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses in numbers. OSError where there are none."""

MOST_TRIED = 4
"""Of the addresses that a host has."""
CONNECT_SECONDS, IDLE_SECONDS = 10.0, 30.0
TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 as networks that have IPv6 alone show it; the address is in the last 32 bits."""
CLOSED_4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            "168.63.129.16/32",  # Azure's own services, as its virtual machines see them; other clouds' are above
        ),
    )
)
"""The special-purpose registry of IANA. What `is_global` says of these depends on the version of Python."""
UNICAST_6 = IPv6Network("2000::/3")
"""All that IANA has given out; what is outside is local, or for something else."""
CLOSED_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")))
"""Inside of it: protocols, among them tunnels to IPv4 addresses (Teredo), and examples."""
HEADERS = {"User-Agent": "Conure", "Accept": "*/*", "Accept-Encoding": "identity"}
"""Bytes are counted as they are sent: nothing swells when it is unpacked."""


class SafeHttp:
    def __init__(self, private: bool = False, resolve: Resolver | None = None, idle: float = IDLE_SECONDS) -> None:
        """`private` allows every address. `idle`: seconds without a byte that are waited."""
        self._private = private
        self._resolve = resolve or _resolved
        self._patience = httpx2.Timeout(idle, connect=min(idle, CONNECT_SECONDS))

    async def resolve_allowed(self, url: httpx2.URL) -> list[str]:
        """Addresses that may be asked, one or more. Raises BadOption for none, AudioNotFound for an unknown host."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await self._resolve(url.raw_host.decode(), port)
        except (OSError, UnicodeError):
            raise AudioNotFound(f"the host {url.host!r} is not known", "check the URL") from None
        allowed = [address for address in found if self._private or is_public(ip_address(address))]
        if not allowed:
            raise BadOption(
                f"the host {url.host!r} is not on the public network",
                "send the bytes, or let the server fetch from private addresses (allow_private_urls)",
            )
        return allowed[:MOST_TRIED]

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: httpx2.URL, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """An answer whose body was not read yet; a redirect is not followed.

        Raises as `check`, and httpx2.TransportError. Connections are not kept: the next host at the same address need
        not be the one whose certificate was seen.
        """
        addresses = await self.resolve_allowed(url)
        async with httpx2.AsyncClient(verify=_trusted(), trust_env=False, timeout=self._patience) as http:
            for address in addresses:
                asked = http.build_request(
                    method,
                    url.copy_with(host=address.partition("%")[0]),
                    content=content,
                    headers=HEADERS | {"Host": url.netloc.decode()} | dict(headers or {}),
                    extensions={"sni_hostname": url.raw_host.decode()},
                )
                try:
                    answer = await http.send(asked, stream=True)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
                    continue
                try:
                    yield answer
                finally:
                    await answer.aclose()
                return


def parse_url(text: str) -> httpx2.URL:
    """Raises BadOption for what is no address on the web."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise BadOption(f"the URL cannot be read: {error}", "give one that begins with https://") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise BadOption(f"the URL begins with {text[:16]!r}", "give one that begins with https:// or http://")
    if not (url.port is None or 0 < url.port < 2**16):
        raise BadOption(f"the URL has port {url.port}", "give one from 1 to 65535")
    return url


def is_public(address: Address) -> bool:
    """Whether anybody may ask it: not of this machine, a network of one's own, or one that is for something else."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in CLOSED_4)
    if inside := _embedded(address):
        return is_public(inside)
    return address.is_global and address in UNICAST_6 and not any(address in network for network in CLOSED_6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this one are sent on to."""
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Reading all certificates takes a while."""
    return httpx2.create_ssl_context()
