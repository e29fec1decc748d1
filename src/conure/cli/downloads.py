"""Weights from the hub, with a bar."""

from __future__ import annotations

from pathlib import Path

from conure.models import catalog
from conure.models.hub_repository import HubRepository, is_hub_id, parse_pins

__all__ = ["ensure_on_disk", "wanted"]


def wanted(name: str) -> HubRepository | None:
    """The hub repository that a model's name stands for; None for files, folders and what is inside Conure."""
    plain, revision, file = parse_pins(name)
    entry = catalog.find(plain)
    if entry is not None:
        return HubRepository(entry.repository, revision, file=file) if entry.repository else None
    if Path(name).expanduser().exists() or not is_hub_id(plain):
        return None
    return HubRepository(plain, revision, file=file)


def ensure_on_disk(name: str) -> Path | None:
    """Download the model if it is one of the hub's and not here; where it lies."""
    repository = wanted(name)
    if repository is None:
        return None
    from conure.models import hub  # noqa: PLC0415  what is shipped or lies in a folder needs no hub

    if (path := hub.cached_path(repository)) is not None:
        return path
    from conure.cli.progress import download_bar  # noqa: PLC0415

    with download_bar(_title(name)) as progress:
        return hub.fetch(repository, progress)


def _title(name: str) -> str:
    entry = catalog.find(name.partition("@")[0])
    return name if entry is None else f"{entry.name} ({entry.megabytes / 1000:.1f} GB)"
