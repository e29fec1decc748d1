"""Settings to the doors and ports that are open, and to whom."""

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
PORTS_OF = {"tcp_port": "native", "grpc_port": "riva", "wyoming_port": "wyoming"}
"""Ports that have one door; all others share the web's."""
WEB_DOORS = frozenset(PROTOCOLS) - {"riva", "wyoming"}


def disabled_protocols(settings: Settings) -> frozenset[str]:
    return frozenset(name.strip() for name in settings.disable.split(",") if name.strip())


def bind_settings(settings: Settings) -> Settings:
    """The settings with a word for every port.

    Raises MissingBackend for a gRPC that is not installed, and BadOption where nothing would be open, where strangers
    could come in whom nobody has let in, or for a certificate that cannot serve.
    """
    check_certificate(settings.tls_certificate, settings.tls_key)
    _check_access(settings)
    closed = disabled_protocols(settings)
    grpc = settings.grpc_port
    has_grpc = all(importlib.util.find_spec(name) for name in GRPC)
    if grpc is None:
        grpc = GRPC_PORT if has_grpc else 0
    elif grpc and not has_grpc:
        raise MissingBackend("gRPC is not installed", "pip install 'conure[grpc]', or --grpc-port 0")
    ports = {"tcp_port": settings.tcp_port, "grpc_port": grpc, "wyoming_port": settings.wyoming_port}
    open_ones = settings.model_copy(update={name: 0 if PORTS_OF[name] in closed else ports[name] for name in ports})
    has_web = settings.port and not closed >= WEB_DOORS
    if not has_web and not any(getattr(open_ones, name) for name in ports):
        raise BadOption("every door is closed", "leave one of the ports open, and a door at it")
    return open_ones


def access_summary(settings: Settings) -> str:
    """Use the server, for whoever starts it."""
    if settings.keys:
        return f"keys of {settings.keys}"
    return "everybody who reaches it" if settings.allow_anonymous else "this machine, without keys"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    addresses = {str(address[0]).partition("%")[0] for _, _, _, _, address in found}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _check_access(settings: Settings) -> None:
    if settings.keys is not None:
        KeyFile(settings.keys)
    elif not (settings.allow_anonymous or is_loopback(settings.host)):
        raise BadOption(
            f"other machines could reach {settings.host or 'every address'}, and there are no keys",
            "make some (`conure keys add NAME --keys FILE`) and give --keys FILE, or --allow-anonymous",
        )
