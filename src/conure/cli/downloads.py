"""Downloads of weights from the Hugging Face hub, with a progress bar."""

from __future__ import annotations

from pathlib import Path

from conure.models import catalog
from conure.models.hub_repository import HubRepository, is_hub_id, parse_pins

__all__ = ["ensure_on_disk", "find_repository"]


def find_repository(name: str) -> HubRepository | None:
    """The hub repository of a model name; None for files, folders and models shipped with Conure."""
    plain, revision, file = parse_pins(name)
    entry = catalog.find(plain)
    if entry is not None:
        return HubRepository(entry.repository, revision, file=file) if entry.repository else None
    if Path(name).expanduser().exists() or not is_hub_id(plain):
        return None
    return HubRepository(plain, revision, file=file)


def ensure_on_disk(name: str) -> Path | None:
    """Download the model if it is on the hub and not cached. Returns its path; None if it is not of the hub."""
    repository = find_repository(name)
    if repository is None:
        return None
    from conure.models import hub  # noqa: PLC0415  only models of the hub need it

    if (path := hub.cached_path(repository)) is not None:
        return path
    from conure.cli.progress import download_bar  # noqa: PLC0415

    with download_bar(_title(name)) as progress:
        return hub.fetch(repository, progress)


def _title(name: str) -> str:
    entry = catalog.find(name.partition("@")[0])
    return name if entry is None else f"{entry.name} ({entry.megabytes / 1000:.1f} GB)"
