"""A repository of the Hugging Face hub, by its name alone: nothing of the hub is loaded here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Progress", "Wanted", "is_hub_id"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and all bytes, None where the hub does not tell."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Wanted:
    """A repository of the hub, and how to get at it."""

    repository: str
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""
    cache: Path | None = None
    """Where the hub's cache lies; None is where huggingface_hub keeps it."""
    offline: bool = False

    @property
    def name(self) -> str:
        """The repository without its owner."""
        return self.repository.rpartition("/")[2]

    @property
    def label(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form org/name."""
    return _HUB_ID.fullmatch(name) is not None and not name.endswith(".nemo")
