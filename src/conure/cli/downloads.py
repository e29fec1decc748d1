"""Weights from the hub, with a bar."""

from __future__ import annotations

from pathlib import Path

from conure.cli.progress import download_bar
from conure.models import catalog, hub

__all__ = ["ensure_on_disk", "wanted"]


def wanted(name: str) -> hub.Wanted | None:
    """The hub repository that a model's name stands for; None for files, folders and what is inside Conure."""
    plain, _, revision = name.partition("@")
    entry = catalog.find(plain)
    if entry is not None:
        return hub.Wanted(entry.repository, revision or None) if entry.repository else None
    if Path(name).expanduser().exists() or not hub.is_hub_id(plain):
        return None
    return hub.Wanted(plain, revision or None)


def ensure_on_disk(name: str) -> Path | None:
    """Download the model if it is one of the hub's and not here; where it lies."""
    repository = wanted(name)
    if repository is None:
        return None
    if (path := hub.on_disk(repository)) is not None:
        return path
    with download_bar(_title(name)) as progress:
        return hub.fetch(repository, progress)


def _title(name: str) -> str:
    entry = catalog.find(name.partition("@")[0])
    return name if entry is None else f"{entry.name} ({entry.megabytes / 1000:.1f} GB)"
