"""Doors of the web port as one application."""

from __future__ import annotations

from fastapi import FastAPI

from conure.doors.health import health
from conure.doors.marker_socket import marker_socket
from conure.doors.recordings import recordings
from conure.doors.stream_socket import stream_socket
from conure.service.files import FileService
from conure.service.live import LiveService
from conure.service.status import Status

__all__ = ["web_app"]


def web_app(live: LiveService, files: FileService, status: Status, most_bytes: int) -> FastAPI:
    app = FastAPI(title="Conure", description="Speech to text on your own machine.", docs_url=None, redoc_url=None)
    app.include_router(stream_socket(live))
    app.include_router(marker_socket(live))
    app.include_router(recordings(files, live.models, most_bytes))
    app.include_router(health(status))
    return app
