"""Models, addresses and ports of a started server."""

from __future__ import annotations

from dataclasses import dataclass

from conure.engine.plan import ModelInfo
from conure.settings import Settings

__all__ = ["PORTS", "Ports", "ServerInfo", "server_info"]

PORTS = {"port": "web", "tcp_port": "tcp", "grpc_port": "grpc", "wyoming_port": "wyoming", "status_port": "status"}
"""Names of port settings -> fields of `Ports`."""


@dataclass(frozen=True)
class Ports:
    """None for a port that is off."""

    web: int | None = None
    tcp: int | None = None
    grpc: int | None = None
    wyoming: int | None = None
    status: int | None = None


@dataclass(frozen=True)
class ServerInfo:
    models: tuple[ModelInfo, ...]
    host: str
    ports: Ports
    is_encrypted: bool = False
    """Whether HTTP, WebSocket and gRPC use TLS."""

    @property
    def addresses(self) -> dict[str, str]:
        """Addresses of open ports, by name."""
        ports = self.ports
        web = "https" if self.is_encrypted else "http"
        by_name = {"web": ports.web, "tcp": ports.tcp, "grpc": ports.grpc, "wyoming": ports.wyoming}
        open_ports = {name: port for name, port in (by_name | {"status": ports.status}).items() if port is not None}
        return {
            name: f"{web}://{self.host}:{port}" if name == "web" else f"{self.host}:{port}"
            for name, port in open_ports.items()
        }


def server_info(settings: Settings, models: tuple[ModelInfo, ...], ports: Ports) -> ServerInfo:
    return ServerInfo(models, settings.host, ports, is_encrypted=settings.tls_certificate is not None)
