"""Garbage collection for processes that load a lot once and then serve."""

from __future__ import annotations

import gc

__all__ = ["freeze_heap"]


def freeze_heap() -> None:
    """Modules and networks stay: they are not looked through again, so looking through the rest is cheap.

    How often that is done depends on what the last full collection found, so there is one that finds nothing: what
    ended streams leave behind is collected soon.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
