"""When each sample of a stream would have been spoken, had the client sent it at the pace of speech.

    sent as it is spoken   a packet ends when it arrives
    sent at once           a sample comes after the one before it, 1/16,000 s later

So audio is late where it was spoken long ago and is not worked in; how fast a client was makes none late.
"""

from __future__ import annotations

from collections import deque

__all__ = ["RealtimeClock"]

RATE = 16_000
LONGEST_PACKET = 1.0
"""Seconds that a packet may have been gathered before it was sent; what is longer was not sent as it was spoken."""
JITTER = 0.002
"""Seconds by which packets may come late without being noted one by one."""


class RealtimeClock:
    """Of one stream. Times are of any clock that goes on."""

    __slots__ = ("_end", "_is_even", "_marks", "_time")

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()
        """From which sample on, and when that one began; the first mark covers what is heard now."""
        self._end = 0
        self._time = float("-inf")
        """When the last sample ended."""
        self._is_even = False
        """What comes next may go on from the last mark."""

    def add_packet(self, count: int, now: float) -> None:
        """So many samples came. Called for every packet, and so as plain as it can be."""
        seconds = count / RATE
        begin = now - (seconds if seconds < LONGEST_PACKET else LONGEST_PACKET)
        if begin <= self._time + JITTER and self._is_even:
            self._time += seconds
        else:
            begin = max(begin, self._time)
            self._marks.append((self._end, begin))
            self._time, self._is_even = begin + seconds, True
        self._end += count

    def spoken_at(self, place: int) -> float:
        """When so many samples had been spoken."""
        first, begin = self._marks[0] if self._marks else (place, float("-inf"))
        for first_of_next, begin_of_next in self._marks:
            if first_of_next >= place:
                break
            first, begin = first_of_next, begin_of_next
        return begin + (place - first) / RATE

    def discard_before(self, before: int) -> None:
        """Nobody will ask for samples before that one."""
        while len(self._marks) > 1 and self._marks[1][0] <= before:
            self._marks.popleft()

    def lag(self, place: int, now: float) -> float:
        """Seconds since the sample there was spoken; 0 where there is none yet, or it came ahead of its time."""
        if place >= self._end:
            return 0.0
        self.discard_before(place)
        first, begin = self._marks[0]
        return max(now - begin - (place - first) / RATE, 0.0)

    def reset_lead(self, now: float) -> None:
        """Nothing waits that could be heard: who was ahead of time sends as it is spoken from here on."""
        if now < self._time:
            self._time, self._is_even = now, False

    def restart(self, place: int, now: float) -> None:
        """What is there from that sample on counts as if it came now."""
        self._marks.clear()
        self._marks.append((place, now))
        self._time, self._is_even = now + (self._end - place) / RATE, True
