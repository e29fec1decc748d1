"""Garbage collection for processes that load much at their start and then serve."""

from __future__ import annotations

import gc

__all__ = ["freeze_heap"]


def freeze_heap() -> None:
    """Excludes everything allocated so far (modules, networks) from later collections, which makes them cheap.

    Python delays full collections in proportion to the objects that the last one found, so the final collection, which
    finds none, makes sure that garbage of ended streams is collected soon.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
