"""Names of repositories of the Hugging Face hub. Independent of huggingface_hub, so cheap to import."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Progress", "HubRepository", "is_hub_id", "parse_pins"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are downloaded and the total, which is None if the hub does not report it."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubRepository:
    """A repository of the hub and the options of its download."""

    repository: str
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""
    cache: Path | None = None
    """Folder of the hub's cache; None is the default of huggingface_hub."""
    offline: bool = False
    file: str | None = None
    """The .nemo file to use, if the repository has several."""

    @property
    def name(self) -> str:
        """Name of the repository without its owner."""
        return self.repository.rpartition("/")[2]

    @property
    def label(self) -> str:
        return "@".join(part for part in (self.repository, self.revision, self.file) if part)


def parse_pins(name: str) -> tuple[str, str | None, str | None]:
    """name@revision, name@file.nemo or name@revision@file.nemo -> name, revision and file."""
    name, *pins = name.split("@")
    files = [pin for pin in pins if pin.endswith(".nemo")]
    revisions = [pin for pin in pins if pin and not pin.endswith(".nemo")]
    return name, next(iter(revisions), None), next(iter(files), None)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form org/name."""
    return _HUB_ID.fullmatch(name) is not None and not name.endswith(".nemo")
