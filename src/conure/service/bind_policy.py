"""Which protocols and ports a server opens, and to which clients, according to its settings."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket

from conure.errors import BadOption, MissingBackend
from conure.service.certificates import check_certificate
from conure.service.keys import KeyFile
from conure.settings import PROTOCOLS, Settings

__all__ = ["disabled_protocols", "bind_settings", "is_loopback", "access_summary"]

GRPC_PORT = 50051
GRPC = ("grpc", "grpc_health", "grpc_reflection")
PROTOCOL_OF_PORT = {"tcp_port": "native", "grpc_port": "riva", "wyoming_port": "wyoming"}
"""Ports of a single protocol; all other protocols share the web port."""
WEB_PROTOCOLS = frozenset(PROTOCOLS) - {"riva", "wyoming"}


def disabled_protocols(settings: Settings) -> frozenset[str]:
    return frozenset(name.strip() for name in settings.disable.split(",") if name.strip())


def bind_settings(settings: Settings) -> Settings:
    """The settings with an explicit value for every port.

    Raises MissingBackend if gRPC is requested and not installed, and BadOption if no protocol would be open, if other
    machines could connect without keys although that was not allowed, or if the certificate is unusable.
    """
    check_certificate(settings.tls_certificate, settings.tls_key)
    _check_access(settings)
    disabled = disabled_protocols(settings)
    grpc = settings.grpc_port
    has_grpc = all(importlib.util.find_spec(name) for name in GRPC)
    if grpc is None:
        grpc = GRPC_PORT if has_grpc else 0
    elif grpc and not has_grpc:
        raise MissingBackend("gRPC is not installed", "pip install 'conure[grpc]', or --grpc-port 0")
    ports = {"tcp_port": settings.tcp_port, "grpc_port": grpc, "wyoming_port": settings.wyoming_port}
    bound = settings.model_copy(
        update={name: 0 if PROTOCOL_OF_PORT[name] in disabled else ports[name] for name in ports}
    )
    has_web = settings.port and not disabled >= WEB_PROTOCOLS
    if not has_web and not any(getattr(bound, name) for name in ports):
        raise BadOption("all protocols are disabled", "leave one port and one of its protocols enabled")
    return bound


def access_summary(settings: Settings) -> str:
    """Which clients may use the server, in a few words for the log."""
    if settings.keys:
        return f"keys of {settings.keys}"
    return "any client, without keys" if settings.allow_anonymous else "this machine, without keys"


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to that address."""
    try:
        resolved = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    addresses = {str(address[0]).partition("%")[0] for _, _, _, _, address in resolved}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _check_access(settings: Settings) -> None:
    if settings.keys is not None:
        KeyFile(settings.keys)
    elif not (settings.allow_anonymous or is_loopback(settings.host)):
        raise BadOption(
            f"{settings.host or 'every address'} accepts other machines, and there are no keys",
            "create a key (`conure keys add NAME --keys FILE`) and use --keys FILE, or use --allow-anonymous",
        )
