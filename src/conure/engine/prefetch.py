"""Iterates with the next item prepared in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], thread_name: str) -> Iterator[Item]:
    """The same items (none may be None); a thread computes each while the caller uses the one before it."""
    with ThreadPoolExecutor(1, thread_name_prefix=thread_name) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
