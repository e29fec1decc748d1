"""The services that protocols are built on."""

from __future__ import annotations

from dataclasses import dataclass, field

from conure.protocols.http.connection_limits import ConnectionLimits
from conure.protocols.http.uploads import Uploads
from conure.service.access import Access, AnonymousAccess
from conure.service.callbacks import Callbacks
from conure.service.client_secrets import ClientSecrets
from conure.service.file_service import FileService
from conure.service.live_service import LiveService
from conure.service.safe_http import SafeHttp
from conure.service.status import Status
from conure.service.url_fetcher import UrlFetcher

__all__ = ["Services"]


@dataclass(frozen=True)
class Services:
    live: LiveService
    files: FileService
    status: Status
    access: Access = AnonymousAccess()  # noqa: RUF009  it has no state
    uploads: Uploads = field(default_factory=lambda: Uploads(2**31, 128))
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    """Shared by all ports of this process."""
    fetcher: UrlFetcher = field(default_factory=lambda: UrlFetcher(SafeHttp()))
    callbacks: Callbacks = field(default_factory=lambda: Callbacks(SafeHttp()))
    secrets: ClientSecrets = ClientSecrets(b"")  # noqa: RUF009  it has no state
    """The default signs with an empty secret: without keys a client secret protects nothing."""
