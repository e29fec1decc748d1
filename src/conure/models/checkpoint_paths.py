"""Resolves a model name to a checkpoint on disk.

Names are looked up in this order: the catalog (names and aliases), an existing path, a hub id `org/name`. A revision
may be pinned with `@`, and so may one of several .nemo files of a repository.
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
    """A checkpoint on disk that is not read yet, with the name and languages that the catalog has for it."""

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
        """The checkpoint with name and languages of the catalog, where it has them."""
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
    """The path of a checkpoint; it is downloaded first if necessary."""
    requested = os.fspath(name_or_path)
    name, pinned_revision, file = parse_pins(requested)
    repository = HubRepository(name, revision or pinned_revision, cache, offline, file)
    if isinstance(name_or_path, str) and (entry := catalog.find(name)):
        path = _entry_path(entry, replace(repository, repository=entry.repository), progress)
        return CheckpointPath(path, entry.name, entry.languages)
    if Path(requested).expanduser().exists():
        return CheckpointPath(Path(requested).expanduser())
    if not is_hub_id(name):
        raise _unknown(requested)
    return CheckpointPath(_fetch(repository, progress), name)


def _entry_path(entry: catalog.CatalogModel, repository: HubRepository, progress: Progress | None) -> Path:
    if entry.repository:
        return _fetch(repository, progress)
    if repository.revision:
        raise UnknownModel(f"{entry.name} is shipped inside Conure and has no revision {repository.revision!r}")
    shipped = Path(str(resources.files("conure"))) / "data" / entry.name
    if not (shipped / "config.json").is_file():
        raise ModelNotFound(f"this installation of Conure lacks the model {entry.name!r}", "reinstall conure")
    return shipped


def _fetch(repository: HubRepository, progress: Progress | None) -> Path:
    from conure.models.hub import fetch  # noqa: PLC0415  only needed if the model is not local

    return fetch(repository, progress)


def _unknown(requested: str) -> UnknownModel:
    if requested.endswith(".nemo") or requested.startswith((".", "/", "~")):
        return UnknownModel(f"no such model file or folder: {requested}")
    return catalog.unknown_model(requested)
