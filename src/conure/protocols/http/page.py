"""The web page at `/` and its assets, built from `page/` and shipped in the package."""

from __future__ import annotations

import secrets
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from conure.protocols.services import Services

__all__ = ["page"]

FILES = Path(__file__).parents[2] / "page"
DATA = Path(__file__).parents[2] / "data"
SAMPLES = {"assets/digits.flac": DATA / "digits.flac", "assets/speech.flac": DATA / "jfk.flac"}
"""Sample recordings: digits, for the embedded models, and speech."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".flac": "audio/flac"}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; "
    "connect-src 'self' blob:; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page may load its own files, and recordings that were dropped on it (blob:)."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page(services: Services) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    html = (FILES / "index.html").read_text()
    files = {
        path.relative_to(FILES).as_posix(): path for path in FILES.rglob("*") if path.suffix in MEDIA_TYPES
    } | SAMPLES

    @router.get("/")
    async def index() -> Response:
        nonce = secrets.token_urlsafe(16)  # for the inline style of the waveform
        policy = CONTENT_SECURITY_POLICY.format(nonce=nonce)
        return HTMLResponse(html.replace("__NONCE__", nonce), headers=HEADERS | {"Content-Security-Policy": policy})

    @router.get("/icon.svg")
    async def icon() -> Response:
        return _file("icon.svg")

    @router.get("/assets/{name}")
    async def asset(name: str) -> Response:
        return _file(f"assets/{name}")

    def _file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return FileResponse(files[name], media_type=MEDIA_TYPES[files[name].suffix], headers=HEADERS)

    return router
