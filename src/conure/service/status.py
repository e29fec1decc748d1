"""How the server is: what doors tell of it, in one place."""

from __future__ import annotations

import time
from typing import Any

from conure.service.live import LiveService

__all__ = ["Status"]


class Status:
    def __init__(self, live: LiveService) -> None:
        self._live = live
        self._since = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether streams are taken."""
        return self._live.handle.is_ready and not self._live.draining

    def tell(self) -> dict[str, Any]:
        live, handle = self._live, self._live.handle
        state = "draining" if live.draining else "ready" if handle.is_ready else "restarting"
        return {
            "status": state,
            "ready": self.is_ready,
            "streams": len(live),
            "uptime_seconds": round(time.monotonic() - self._since, 1),
            "engine_restarts": handle.restarts,
            "models": [
                {
                    "name": card.name,
                    "live": bool(card.latencies),
                    "clips": card.clips,
                    "runner": card.runner,
                    "languages": list(card.languages),
                    "streams": dict(zip(map(str, card.latencies), card.capacity, strict=True)),
                }
                for card in handle.cards
            ],
        }
