"""Compares the time stamps of a container with the decoded samples, to find gaps. All times are in seconds."""

from __future__ import annotations

from typing import Literal

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

__all__ = ["TimestampClock", "TimestampUse", "timestamp_use"]

MIN_GAP, MAX_GAP = 0.1, 3600.0
"""Bounds of a gap: smaller differences are jitter, larger ones are a clock that was reset."""
BASE_SILENCE, SILENCE_PER_SECOND = 600.0, 10.0
"""Limit of inserted silence: a constant part and a part per decoded second. It prevents a few bytes with time stamps
from becoming hours of audio."""

WITH_TIMESTAMPS = (
    *("asf", "asf_o", "dv", "flv", "gxf", "iamf", "kux", "live_flv", "matroska", "mov", "mpeg", "mpegts", "mxf"),
    *("nsv", "nut", "ogg", "rm", "wtv"),
)
"""Containers with time stamps. For others FFmpeg computes them by the first frame's sample rate, or a mean bit rate."""
WITH_START_TIME = ("avi",)
"""Containers that only declare the start of each track."""

TimestampUse = Literal["always", "start", "never"]


def timestamp_use(container: InputContainer) -> TimestampUse:
    """For which frames of a container time stamps are used; otherwise only the lengths of frames count."""
    kind = container.format.name.split(",")[0]
    return "always" if kind in WITH_TIMESTAMPS else "start" if kind in WITH_START_TIME else "never"


class TimestampClock:
    """The position in a source, by decoded samples and the gaps between them."""

    def __init__(self) -> None:
        self.position = 0.0
        """End of the samples so far, gaps included."""
        self.filled = 0.0
        """Total length of the gaps, without the one before the first sample."""
        self.gaps: list[float] = []
        self.leaps: list[tuple[float, float]] = []
        """Positions where a leap of the time stamps was ignored, and its length."""
        self.skipped = 0.0
        """Total length of the leaps."""
        self._decoded = 0.0
        self._silence = 0.0
        self.begin(None, "never")

    def begin(self, start_us: int | None, follows: TimestampUse) -> None:
        """Starts another container, whose first time stamp is `start_us`."""
        self._base = self.position
        """Position that corresponds to the container's origin."""
        self._origin = None if start_us is None else start_us / av.time_base
        self._follows = follows

    def gap_before(self, frame: AudioFrame) -> float:
        """Length of the gap before the frame. Gap and frame are added to `position`."""
        gap = 0.0
        if self._follows != "never" and frame.time is not None:
            gap = self._ahead(frame.time)
        if self._follows == "start":
            self._follows = "never"
        if gap and self._decoded:  # a late start is not a loss
            self.gaps.append(self.position)
            self.filled += gap
        length = frame.samples / frame.sample_rate
        self._silence += gap
        self._decoded += length
        self.position += gap + length
        return gap

    def _ahead(self, time: float) -> float:
        if self._origin is None:
            self._origin = time
        ahead = time - self._origin - (self.position - self._base)
        if abs(ahead) < MIN_GAP:
            return 0.0
        limit = BASE_SILENCE + SILENCE_PER_SECOND * self._decoded - self._silence
        if 0 < ahead <= min(MAX_GAP, limit):
            return ahead
        self._origin += ahead
        if ahead > 0:
            self.leaps.append((self.position, ahead))
            self.skipped += ahead
        return 0.0
