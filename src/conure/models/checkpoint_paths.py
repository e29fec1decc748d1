"""A name or a path becomes a place on disk.

Names are looked up in this order: the catalogue (names and aliases), a path that exists, a hub id `org/name`.
A revision may be pinned with `@`, and so may one of several .nemo files of a repository.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from conure.errors import ModelNotFound, UnknownModel
from conure.models import catalog
from conure.models.checkpoint import Checkpoint
from conure.models.hub_repository import HubRepository, Progress, is_hub_id, parse_pins

__all__ = ["CheckpointPath", "find_checkpoint"]


@dataclass(frozen=True)
class CheckpointPath:
    """A checkpoint on disk that was not read yet, and what the catalogue knows better than it."""

    path: Path
    name: str = ""
    languages: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        files = [self.path] if self.path.is_file() else [file for file in self.path.iterdir() if file.is_file()]
        return sum(file.stat().st_size for file in files)

    def load(self) -> Checkpoint:
        from conure.models.loader import read_checkpoint  # noqa: PLC0415  it loads torch

        return self.with_catalog_info(read_checkpoint(self.path))

    def with_catalog_info(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint under the name it was asked for by."""
        languages = self.languages or checkpoint.languages
        return replace(checkpoint, name=self.name or checkpoint.name, languages=languages)


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    cache: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> CheckpointPath:
    """Where that checkpoint is, once it is on disk."""
    asked = os.fspath(name_or_path)
    name, told, file = parse_pins(asked)
    wanted = HubRepository(name, revision or told, cache, offline, file)
    if isinstance(name_or_path, str) and (entry := catalog.find(name)):
        path = _entry_path(entry, replace(wanted, repository=entry.repository), progress)
        return CheckpointPath(path, entry.name, entry.languages)
    if Path(asked).expanduser().exists():
        return CheckpointPath(Path(asked).expanduser())
    if not is_hub_id(name):
        raise _unknown(asked)
    return CheckpointPath(_fetch(wanted, progress), name)


def _entry_path(entry: catalog.CatalogModel, wanted: HubRepository, progress: Progress | None) -> Path:
    if entry.repository:
        return _fetch(wanted, progress)
    if wanted.revision:
        raise UnknownModel(f"{entry.name} is shipped inside Conure and has no revision {wanted.revision!r}")
    shipped = Path(str(resources.files("conure"))) / "data" / entry.name
    if not (shipped / "config.json").is_file():
        raise ModelNotFound(f"this installation of Conure has no {entry.name!r} inside", "reinstall conure")
    return shipped


def _fetch(wanted: HubRepository, progress: Progress | None) -> Path:
    from conure.models.hub import fetch  # noqa: PLC0415  what is shipped or lies in a folder needs no hub

    return fetch(wanted, progress)


def _unknown(asked: str) -> UnknownModel:
    if asked.endswith(".nemo") or asked.startswith((".", "/", "~")):
        return UnknownModel(f"no such model file or folder: {asked}")
    return catalog.unknown_model(asked)
