"""What a server turned out to be, for whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

from conure.engine.plan import ModelInfo
from conure.settings import Settings

__all__ = ["PORTS", "Ports", "ServerInfo", "server_info"]

PORTS = {"port": "web", "tcp_port": "tcp", "grpc_port": "grpc", "wyoming_port": "wyoming", "status_port": "status"}
"""Settings, and what they are in `Ports`."""


@dataclass(frozen=True)
class Ports:
    """None is off."""

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
    """HTTP, WebSocket and gRPC."""

    @property
    def addresses(self) -> dict[str, str]:
        """Of what is open, by name."""
        ports = self.ports
        web = "https" if self.is_encrypted else "http"
        named = {"web": ports.web, "tcp": ports.tcp, "grpc": ports.grpc, "wyoming": ports.wyoming}
        open_ones = {name: port for name, port in (named | {"status": ports.status}).items() if port is not None}
        return {
            name: f"{web}://{self.host}:{port}" if name == "web" else f"{self.host}:{port}"
            for name, port in open_ones.items()
        }


def server_info(settings: Settings, models: tuple[ModelInfo, ...], ports: Ports) -> ServerInfo:
    return ServerInfo(models, settings.host, ports, is_encrypted=settings.tls_certificate is not None)
