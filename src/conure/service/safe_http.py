"""HTTP requests to URLs of clients, guarded against SSRF: no private addresses, unless they are allowed.

    URL -> host, port -> resolved addresses -> public ones -> a connection to exactly the address that was checked

The name is resolved here, once per request: a second lookup could return another address than the checked one. For the
same reason redirects are not followed; each is a new request. The spelling of an address makes no difference.
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
"""(host, port) -> numeric addresses. Raises OSError if there are none."""

MAX_ADDRESSES = 4
"""Addresses of a host that are tried."""
CONNECT_SECONDS, IDLE_SECONDS = 10.0, 30.0
NAT64 = IPv6Network("64:ff9b::/96")
"""NAT64: IPv4 addresses on IPv6-only networks; the IPv4 address is the last 32 bits."""
PRIVATE_4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            "168.63.129.16/32",  # Azure's platform services; those of other clouds are in the ranges above
        ),
    )
)
"""IANA's special-purpose registry. The results of `is_global` for these depend on the version of Python."""
UNICAST_6 = IPv6Network("2000::/3")
"""The range that IANA assigns from; addresses outside are local or special."""
PRIVATE_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")))
"""Special ranges inside of it: protocols, among them tunnels to IPv4 (Teredo), and documentation."""
HEADERS = {"User-Agent": "Conure", "Accept": "*/*", "Accept-Encoding": "identity"}
"""`identity`: the size limit counts bytes as sent, so the body must not be compressed."""


class SafeHttp:
    def __init__(self, private: bool = False, resolve: Resolver | None = None, idle: float = IDLE_SECONDS) -> None:
        """`private` allows every address. `idle`: timeout, in seconds, without received bytes."""
        self._allows_private = private
        self._resolve = resolve or _resolve
        self._timeout = httpx2.Timeout(idle, connect=min(idle, CONNECT_SECONDS))

    async def resolve_allowed(self, url: httpx2.URL) -> list[str]:
        """Permitted addresses of the host. Raises BadOption if there are none, AudioNotFound for an unknown host."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(url.raw_host.decode(), port)
        except (OSError, UnicodeError):
            raise AudioNotFound(f"unknown host {url.host!r}", "check the URL") from None
        allowed = [address for address in addresses if self._allows_private or is_public(ip_address(address))]
        if not allowed:
            raise BadOption(
                f"the host {url.host!r} is not on the public network",
                "send the bytes, or let the server fetch from private addresses (allow_private_urls)",
            )
        return allowed[:MAX_ADDRESSES]

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: httpx2.URL, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """A response whose body is not read yet; redirects are not followed.

        Raises as `resolve_allowed`, and httpx2.TransportError. Connections are not reused: another host at the same
        address may have another certificate.
        """
        addresses = await self.resolve_allowed(url)
        async with httpx2.AsyncClient(verify=_tls_context(), trust_env=False, timeout=self._timeout) as http:
            for address in addresses:
                request = http.build_request(
                    method,
                    url.copy_with(host=address.partition("%")[0]),
                    content=content,
                    headers=HEADERS | {"Host": url.netloc.decode()} | dict(headers or {}),
                    extensions={"sni_hostname": url.raw_host.decode()},
                )
                try:
                    response = await http.send(request, stream=True)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
                    continue
                try:
                    yield response
                finally:
                    await response.aclose()
                return


def parse_url(text: str) -> httpx2.URL:
    """Raises BadOption for anything but an absolute HTTP or HTTPS URL."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise BadOption(f"invalid URL: {error}", "use one that begins with https://") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise BadOption(f"the URL begins with {text[:16]!r}", "use one that begins with https:// or http://")
    if not (url.port is None or 0 < url.port < 2**16):
        raise BadOption(f"the URL has port {url.port}", "use 1 to 65535")
    return url


def is_public(address: Address) -> bool:
    """Whether it is an ordinary Internet address: not of this machine, a private network or a special range."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in PRIVATE_4)
    if embedded := _embedded_ipv4(address):
        return is_public(embedded)
    return address.is_global and address in UNICAST_6 and not any(address in network for network in PRIVATE_6)


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this address are forwarded to."""
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _resolve(host: str, port: int) -> list[str]:
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in resolved))


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Cached: loading all root certificates is slow."""
    return httpx2.create_ssl_context()
