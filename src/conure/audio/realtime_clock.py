"""The time at which each sample of a stream was or would have been spoken if the client sent it in real time.

    sent in real time              a packet's last sample is spoken when it arrives
    sent faster than real time     each sample is spoken 1/16,000 s after the previous one

The lag of a stream is the age of its first unprocessed sample on this clock. Audio that is sent faster than real time
does not increase the lag.
"""

from __future__ import annotations

from collections import deque

from conure.constants import SAMPLE_RATE

__all__ = ["RealtimeClock"]

MAX_PACKET_SECONDS = 1.0
"""Longest packet that is taken to be sent in real time."""
JITTER = 0.002
"""Seconds by which packets may be late without a mark of their own."""


class RealtimeClock:
    """Clock of one stream. Times are of any monotonic clock."""

    __slots__ = ("_end", "_is_continuous", "_marks", "_time")

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()
        """Index and time of samples at which the pace changes; the first mark covers the oldest sample needed."""
        self._end = 0
        self._time = float("-inf")
        """Time at which the last sample ended."""
        self._is_continuous = False
        """Whether the next packet may continue from the last mark."""

    def add_packet(self, count: int, now: float) -> None:
        """`count` samples arrived. Called for every packet, so it is kept fast."""
        seconds = count / SAMPLE_RATE
        begin = now - (seconds if seconds < MAX_PACKET_SECONDS else MAX_PACKET_SECONDS)
        if begin <= self._time + JITTER and self._is_continuous:
            self._time += seconds
        else:
            begin = max(begin, self._time)
            self._marks.append((self._end, begin))
            self._time, self._is_continuous = begin + seconds, True
        self._end += count

    def spoken_at(self, place: int) -> float:
        """Time at which the first `place` samples had been spoken."""
        first, begin = self._marks[0] if self._marks else (place, float("-inf"))
        for first_of_next, begin_of_next in self._marks:
            if first_of_next >= place:
                break
            first, begin = first_of_next, begin_of_next
        return begin + (place - first) / SAMPLE_RATE

    def discard_before(self, before: int) -> None:
        """Drops marks that are only needed for samples before this one."""
        while len(self._marks) > 1 and self._marks[1][0] <= before:
            self._marks.popleft()

    def lag(self, place: int, now: float) -> float:
        """Seconds since the sample `place` was spoken; 0 if it has not arrived or was sent ahead of time."""
        if place >= self._end:
            return 0.0
        self.discard_before(place)
        first, begin = self._marks[0]
        return max(now - begin - (place - first) / SAMPLE_RATE, 0.0)

    def reset_lead(self, now: float) -> None:
        """All audio is processed: a stream that was ahead of real time counts as being in real time from now on."""
        if now < self._time:
            self._time, self._is_continuous = now, False

    def restart(self, place: int, now: float) -> None:
        """Audio from the sample `place` on counts as arrived now."""
        self._marks.clear()
        self._marks.append((place, now))
        self._time, self._is_continuous = now + (self._end - place) / SAMPLE_RATE, True
