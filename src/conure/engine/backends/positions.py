"""Projected relative positions: each layer's projection of the distances between steps."""

from __future__ import annotations

import numpy as np

from conure.engine.convert.graph_names import REACH

__all__ = ["position_tables", "projected_distances"]


def position_tables(levels: int | None, weight: np.ndarray, heads: int, reach: int) -> dict[str, np.ndarray]:
    """Tables for ONNX graphs of whole clips: distances reach, ..., 1 - reach by head, [h, D / h, 2 * reach].

    The first column is not used by any score; it allows the shift from distances to keys by reshaping. With `levels`
    the table is int8. Its scale is that of the distances within REACH, so that longer tables do not change the scores
    of short clips.
    """
    table = projected_distances(weight, heads, reach, 1 - reach)
    if levels is None:
        return {"positions": table}
    within_reach = table[:, :, max(reach - REACH, 0) : reach + REACH]
    scale = np.array([np.abs(within_reach).max() / levels or 1.0], np.float32)
    values = np.rint(table / scale).clip(-levels, levels).astype(np.int8)
    return {"positions": values, "scale": scale}


def projected_distances(weight: np.ndarray, heads: int, first: int, last: int) -> np.ndarray:
    """The distances first, first - 1, ..., last projected by a layer's weight [D, D]: [h, D / h, P]."""
    table: np.ndarray = weight @ _sinusoids(first, last, len(weight)).T
    return table.reshape(heads, -1, table.shape[1])


def _sinusoids(first: int, last: int, width: int) -> np.ndarray:
    """Like `attention.sinusoids`, in NumPy."""
    distance = np.arange(first, last - 1, -1, dtype=np.float32)[:, None]
    rate = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angle = distance * rate
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(distance), width)
