"""Makes the next while the last is in use."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Made = TypeVar("Made")


def prefetch(items: Iterator[Made], name: str) -> Iterator[Made]:
    """The same items, none of them None, each made in a thread of that name while the one before it is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        coming = thread.submit(next, items, None)
        while (made := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield made
