"""Divides a device's memory among the models before they run. Pure.

The weights of all models come first, then the minimum of each: one stream (or the requested number) and one clip of
half a minute. The rest is divided into equal parts, one for the streams and one for the clips of each model; what a
model cannot use of its part goes to the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from conure.errors import OutOfMemory

__all__ = [
    "CLIP_SECONDS",
    "ClipNeed",
    "MemoryGrant",
    "ModelNeed",
    "StreamNeed",
    "divide_memory",
    "memory_table",
    "total_min_bytes",
]

CLIP_SECONDS = 30
"""Seconds of a typical clip in a batch."""
MAX_CLIP_SECONDS = 4 * 3600
"""Longest clip that is considered."""


@dataclass(frozen=True)
class StreamNeed:
    """Memory of live streams."""

    slot_bytes: int
    """State of a stream."""
    max_streams: int
    """More are of no use."""
    requested: int | None = None
    """The exact number of streams, if it is configured."""
    step_bytes: int = 0
    """Temporary memory of a stream while its step runs."""
    max_step_rows: int = 1
    """Streams in the largest step."""
    fixed_bytes: int = 0
    """For any number of streams."""

    @property
    def min_streams(self) -> int:
        return self.requested or 1

    @property
    def useful_streams(self) -> int:
        return self.requested or self.max_streams

    def bytes(self, slots: int) -> int:
        return self.fixed_bytes + self.slot_bytes * slots + self.step_bytes * min(slots, self.max_step_rows)


@dataclass(frozen=True)
class ClipNeed:
    """Memory of batches of clips."""

    bytes: Callable[[int, float], int]
    """Of a number of clips of so many seconds; monotone in both."""
    max_seconds: int
    """Audio in a batch; more is of no use."""

    @property
    def min_bytes(self) -> int:
        return self.bytes(1, CLIP_SECONDS)

    @property
    def useful_bytes(self) -> int:
        return self.bytes(max(self.max_seconds // CLIP_SECONDS, 1), CLIP_SECONDS)


@dataclass(frozen=True)
class ModelNeed:
    model: str
    weights: int
    streams: StreamNeed | None = None
    clips: ClipNeed | None = None

    @property
    def min_bytes(self) -> int:
        """Without the weights."""
        streams = self.streams.bytes(self.streams.min_streams) if self.streams else 0
        return streams + (self.clips.min_bytes if self.clips else 0)


@dataclass(frozen=True)
class MemoryGrant:
    need: ModelNeed
    slots: int = 0
    batch_bytes: int = 0
    """For batches of clips."""

    @property
    def batch_seconds(self) -> int:
        """Audio in the largest batch of clips of half a minute or less."""
        assert self.need.clips
        return min(self.need.clips.max_seconds, CLIP_SECONDS * self.max_clips(CLIP_SECONDS))

    @property
    def max_clip_seconds(self) -> int:
        """Duration of the longest clip that fits."""
        clips = self.need.clips
        assert clips
        return _max_fitting(lambda seconds: clips.bytes(1, seconds), MAX_CLIP_SECONDS, self.batch_bytes)

    @property
    def bytes(self) -> int:
        streams = self.need.streams.bytes(self.slots) if self.need.streams else 0
        return self.need.weights + streams + self.batch_bytes

    def max_clips(self, seconds: float) -> int:
        """Clips of so many seconds that fit a batch; 0 when one is too long."""
        clips = self.need.clips
        assert clips
        useful = max(int(clips.max_seconds // max(seconds, 1)), 1)
        return _max_fitting(lambda count: clips.bytes(count, seconds), useful, self.batch_bytes)


def total_min_bytes(needs: Sequence[ModelNeed]) -> int:
    """Bytes without which the engine cannot start."""
    return sum(need.weights + need.min_bytes for need in needs)


def divide_memory(budget: int, needs: Sequence[ModelNeed]) -> list[MemoryGrant]:
    """Divides so many bytes. Raises OutOfMemory when they are less than the minimum."""
    if total_min_bytes(needs) > budget:
        raise _out_of_memory(budget, needs)
    rest = budget - total_min_bytes(needs)
    parts: list[StreamNeed | ClipNeed] = [part for need in needs for part in (need.streams, need.clips) if part]
    extras = iter(_divide(rest, [_useful_extra(part) for part in parts]))
    return [_grant(need, extras) for need in needs]


def memory_table(budget: int, grants: Sequence[MemoryGrant]) -> list[str]:
    """A line for each model that uses memory, and one for what is spare."""
    lines = [f"{grant.need.model}: {', '.join(columns)}" for grant in grants if (columns := _columns(grant))]
    spare = budget - sum(grant.bytes for grant in grants)
    return [*lines, f"{_size(spare)} of {_size(budget)} are spare"]


def _grant(need: ModelNeed, extras: Iterator[int]) -> MemoryGrant:
    slots = batch_bytes = 0
    if streams := need.streams:
        room = streams.bytes(streams.min_streams) + next(extras)
        slots = _max_fitting(streams.bytes, streams.useful_streams, room)
    if need.clips:
        batch_bytes = need.clips.min_bytes + next(extras)
    return MemoryGrant(need, slots, batch_bytes)


def _useful_extra(part: StreamNeed | ClipNeed) -> int:
    """Bytes beyond the minimum that are of use."""
    if isinstance(part, StreamNeed):
        return part.bytes(part.useful_streams) - part.bytes(part.min_streams)
    return part.useful_bytes - part.min_bytes


def _divide(room: int, useful: Sequence[int]) -> list[int]:
    """Equal parts, except for those that can use less."""
    parts = list(useful)
    order = sorted(range(len(useful)), key=useful.__getitem__)
    for place, index in enumerate(order):
        part = room // (len(order) - place)
        if useful[index] > part:
            for larger in order[place:]:
                parts[larger] = part
            break
        room -= useful[index]
    return parts


def _max_fitting(cost: Callable[[int], int], limit: int, room: int) -> int:
    """The largest number up to `limit` whose cost fits."""
    return bisect_right(range(1, limit + 1), room, key=cost)


def _out_of_memory(budget: int, needs: Sequence[ModelNeed]) -> OutOfMemory:
    """Names the first model that does not fit."""
    parts = [(need, "the weights", need.weights) for need in needs]
    parts += [(need, "the work", need.min_bytes) for need in needs]
    totals = accumulate(size for _, _, size in parts)
    need, part_name, _ = next(part for part, total in zip(parts, totals, strict=True) if total > budget)
    requested = need.streams.requested if need.streams else None
    missing, limit = total_min_bytes(needs) - budget, f"with {_size(budget)} for all models"
    message = f"{missing:,} bytes of memory are missing for {part_name} of {need.model}, {limit}"
    fewer = f"fewer slots than {requested}, " if requested and requested > 1 else ""
    return OutOfMemory(message, f"use {fewer}a smaller model, or fewer models")


def _columns(grant: MemoryGrant) -> list[str]:
    need, columns = grant.need, []
    if need.weights:
        columns.append(f"weights {_size(need.weights)}")
    if need.streams:
        columns.append(f"{grant.slots} slots {_size(need.streams.bytes(grant.slots))}")
    if need.clips:
        limits = f"{grant.batch_seconds} s in a batch, {grant.max_clip_seconds} s in a clip at most"
        columns.append(f"clips {_size(grant.batch_bytes)} ({limits})")
    return columns


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
