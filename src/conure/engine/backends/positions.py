"""The distances between steps, as layers project them."""

from __future__ import annotations

import numpy as np

from conure.engine.convert.graph_names import REACH

__all__ = ["position_tables", "projected_distances"]


def position_tables(levels: int | None, weight: np.ndarray, heads: int, reach: int) -> dict[str, np.ndarray]:
    """For graphs of whole clips, the distances reach, reach - 1, ..., 1 - reach by head: [h, D / h, 2 * reach].

    No score reads the first column; it makes the shift from distances to keys a matter of shapes. With `levels` it
    is in bytes of so many; the scale is that of the distances within REACH, so that a longer table does not change
    what the shorter one gave.
    """
    table = projected_distances(weight, heads, reach, 1 - reach)
    if levels is None:
        return {"positions": table}
    near = table[:, :, max(reach - REACH, 0) : reach + REACH]
    scale = np.array([np.abs(near).max() / levels or 1.0], np.float32)
    values = np.rint(table / scale).clip(-levels, levels).astype(np.int8)
    return {"positions": values, "scale": scale}


def projected_distances(weight: np.ndarray, heads: int, first: int, last: int) -> np.ndarray:
    """A layer's projections [D, D] of first, first - 1, ..., last by head: [h, D / h, P]."""
    table: np.ndarray = weight @ _sinusoids(first, last, len(weight)).T
    return table.reshape(heads, -1, table.shape[1])


def _sinusoids(first: int, last: int, width: int) -> np.ndarray:
    """As `attention.sinusoids` has them."""
    distance = np.arange(first, last - 1, -1, dtype=np.float32)[:, None]
    rate = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angle = distance * rate
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(distance), width)
