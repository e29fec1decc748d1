"""What a server turned out to be, for whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

from conure.engine.plan import ModelCard

__all__ = ["Ports", "Serving"]


@dataclass(frozen=True)
class Ports:
    web: int
    tcp: int
    status: int


@dataclass(frozen=True)
class Serving:
    models: tuple[ModelCard, ...]
    host: str
    ports: Ports

    @property
    def web(self) -> str:
        return f"http://{self.host}:{self.ports.web}"

    @property
    def tcp(self) -> str:
        return f"{self.host}:{self.ports.tcp}"

    @property
    def status(self) -> str:
        return f"{self.host}:{self.ports.status}"
