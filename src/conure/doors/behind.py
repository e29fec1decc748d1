"""What every door has behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from conure.doors.connections import Connections
from conure.doors.uploads import Uploads
from conure.service.access import Access, Anyone
from conure.service.callbacks import Callbacks
from conure.service.client_secrets import ClientSecrets
from conure.service.fetching import Fetcher
from conure.service.files import FileService
from conure.service.live import LiveService
from conure.service.outside import Outside
from conure.service.status import Status

__all__ = ["Behind"]


@dataclass(frozen=True)
class Behind:
    live: LiveService
    files: FileService
    status: Status
    access: Access = Anyone()  # noqa: RUF009  it has no state
    uploads: Uploads = field(default_factory=lambda: Uploads(2**31, 128))
    connections: Connections = field(default_factory=Connections)
    """Of all ports of this process."""
    fetcher: Fetcher = field(default_factory=lambda: Fetcher(Outside()))
    callbacks: Callbacks = field(default_factory=lambda: Callbacks(Outside()))
    secrets: ClientSecrets = ClientSecrets(b"")  # noqa: RUF009  it has no state
    """Without keys they keep nobody out, so whoever likes may sign one."""
