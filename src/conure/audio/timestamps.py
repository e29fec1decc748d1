"""Time stamps of a container, held against the samples that came. All in seconds."""

from __future__ import annotations

from typing import Literal

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

__all__ = ["TimestampClock", "TimestampUse", "timestamp_use"]

SHORTEST_GAP, LONGEST_GAP = 0.1, 3600.0
"""By which time stamps run ahead: less is jitter, more is a clock that was set anew."""
FILLED_FREE, FILLED_MOST = 600.0, 10.0
"""Silence that is put into any recording, and the silence for each second that was decoded: a few bytes that hold
nothing but time stamps shall not become hours."""

OF_THEIR_OWN = (
    *("asf", "asf_o", "dv", "flv", "gxf", "iamf", "kux", "live_flv", "matroska", "mov", "mpeg", "mpegts", "mxf"),
    *("nsv", "nut", "ogg", "rm", "wtv"),
)
"""Containers that hold time stamps. In others FFmpeg counts on by the first frame's sample rate, or a mean bit rate."""
AT_THE_START = ("avi",)
"""Those that tell when the sound begins, and no more."""

TimestampUse = Literal["always", "start", "never"]


def timestamp_use(container: InputContainer) -> TimestampUse:
    """Where its time stamps count; elsewhere the recording is as long as its frames are."""
    kind = container.format.name.split(",")[0]
    return "always" if kind in OF_THEIR_OWN else "start" if kind in AT_THE_START else "never"


class TimestampClock:
    def __init__(self) -> None:
        self.position = 0.0
        """End of the samples so far, gaps included."""
        self.filled = 0.0
        """Silence of the gaps, without that before the first sample."""
        self.gaps: list[float] = []
        self.leaps: list[tuple[float, float]] = []
        """Where time stamps were not followed, and how far they ran ahead."""
        self.leapt = 0.0
        """All that together."""
        self._decoded = 0.0
        self._silence = 0.0
        self.begin(None, "never")

    def begin(self, start_us: int | None, follows: TimestampUse) -> None:
        """The next frames are of another container, whose first time stamp is this one."""
        self._base = self.position
        """Time here at which the container's time is its origin."""
        self._origin = None if start_us is None else start_us / av.time_base
        self._follows = follows

    def gap_before(self, frame: AudioFrame) -> float:
        """Silence that belongs before the frame. Its own length is added to `reached`."""
        gap = 0.0
        if self._follows != "never" and frame.time is not None:
            gap = self._ahead(frame.time)
        if self._follows == "start":
            self._follows = "never"
        if gap and self._decoded:  # a sound that starts late has lost nothing
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
        if abs(ahead) < SHORTEST_GAP:
            return 0.0
        room = FILLED_FREE + FILLED_MOST * self._decoded - self._silence
        if 0 < ahead <= min(LONGEST_GAP, room):
            return ahead
        self._origin += ahead
        if ahead > 0:
            self.leaps.append((self.position, ahead))
            self.leapt += ahead
        return 0.0
