"""Between one who pushes bytes and a decoder that pulls them on a thread of its own; samples come back.

Both ways are bounded. Bytes past a limit make the pusher wait, samples past a limit the decoder; so does a
recording that unpacks to hours from a few bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from conure.audio.resample import Samples
from conure.errors import UnsupportedAudio

__all__ = ["PipeAbandoned", "BytePipe"]

UNREAD_MOST = 1 << 18
"""Bytes that may wait for the decoder before a push waits for it."""
UNTAKEN_MOST = 60 * 16_000
"""Samples that may wait to be taken before the decoder waits."""
ANSWER_MOST = 15 * 60 * 16_000
"""Samples that one push or the end may give: FLAC packs hours of silence into a packet."""
SILENT_MOST = 1 << 24
"""Bytes that may be read on end without a sample; covers and indexes are smaller."""


class PipeAbandoned(Exception):
    """Raised in the decoder when nobody wants its samples any more."""


class BytePipe:
    """The pushing side: `put`, `settle`, `end`, `abandon`. The decoder's: `read`, `give`, `leave`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._unread = bytearray()
        self._silent = 0
        """Bytes read since the last sample came."""
        self._untaken: list[Samples] = []
        self._untaken_size = 0
        self._is_hungry = False
        """The decoder waits for bytes: it has made all it can of those it has."""
        self._ended = False
        self._abandoned = False
        self._left = False
        self.left_over = 0
        """Bytes that came after the decoder had found the end of the recording."""
        self._useless: UnsupportedAudio | None = None
        self._error: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next push would wait."""
        return len(self._unread) > UNREAD_MOST

    # --- the pushing side

    def push_bytes(self, data: bytes) -> None:
        with self._changed:
            if self._left:
                self.left_over += len(data)
            else:
                self._unread += data
                self._changed.notify_all()

    def end(self) -> None:
        """No bytes will follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """For the decoder it is the end, and nobody takes its samples."""
        with self._changed:
            self._abandoned = True
            self._unread.clear()
            self._untaken.clear()
            self._changed.notify_all()

    def take_samples(self, patience: float, longest: float) -> Samples:
        """Samples [n], once the decoder has made all it can of the bytes.

        At most `patience` seconds later it gives what there is, and the rest another time. But where too many
        bytes would be left, or it is the end, there is no other time: then it waits until `longest`.
        Raises what the decoder raised, and UnsupportedAudio when limits of time or size are passed.
        """
        taken: list[Samples] = []
        with self._changed:
            done = self._wait(lambda: self._is_settled, patience, taken)
            if not done and (self._ended or self.is_full):
                done = self._wait(lambda: self._is_settled if self._ended else not self.is_full, longest, taken)
                if not done:
                    raise UnsupportedAudio(
                        f"the audio is not decoded {longest:g} s later, {len(self._unread)} bytes wait",
                        "send it in smaller pieces, as it is spoken",
                    )
            if self._error:
                raise self._error
        return np.concatenate(taken) if taken else np.empty(0, np.float32)

    @property
    def _is_settled(self) -> bool:
        return self._left or (self._is_hungry and not self._unread and not self._ended)

    def _wait(self, done: Callable[[], bool], seconds: float, taken: list[Samples]) -> bool:
        """Takes samples as they come until `done` or the time is over; whether it is done."""
        deadline = time.monotonic() + seconds
        while True:
            came = self._changed.wait_for(lambda: done() or self._is_held_up, deadline - time.monotonic())
            finished = done()
            taken += self._untaken
            self._untaken, self._untaken_size = [], 0
            self._changed.notify_all()
            if sum(map(len, taken)) > ANSWER_MOST:
                raise UnsupportedAudio(
                    f"the audio unpacks to more than {ANSWER_MOST // 16_000} s at once", "send it in smaller pieces"
                )
            if finished or not came:
                return finished

    @property
    def _is_held_up(self) -> bool:
        return self._untaken_size > UNTAKEN_MOST

    # --- the decoder's side

    def read(self, size: int) -> bytes:
        """As a file's: waits for bytes, and gives none only at the end.

        It is also the end when nobody wants the samples, or none come of the bytes. Nothing is raised here: FFmpeg
        would ask again, and PyAV print the error that it has not passed on yet.
        """
        with self._changed:
            if not self._unread:
                self._is_hungry = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._unread or self._ended or self._abandoned)
                self._is_hungry = False
            if self._silent > SILENT_MOST:
                self._useless = _useless(self._silent)
            if self._abandoned or self._useless:
                return b""
            data = bytes(self._unread[:size])
            del self._unread[:size]
            self._silent += len(data)
            if not self.is_full:
                self._changed.notify_all()
            return data

    def seekable(self) -> bool:
        return False

    def push_samples(self, samples: Samples) -> None:
        """samples [n]; waits while too many are untaken. Raises Abandoned."""
        with self._changed:
            self._silent = 0
            self._untaken.append(samples)
            self._untaken_size += len(samples)
            if self._is_held_up:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._abandoned or not self._is_held_up)
            if self._abandoned:
                raise PipeAbandoned

    def finish(self, error: Exception | None) -> None:
        """The decoder is through, or failed."""
        with self._changed:
            self._left = True
            self._error = self._useless or error
            self.left_over += len(self._unread)
            self._unread.clear()
            self._changed.notify_all()


def _useless(size: int) -> UnsupportedAudio:
    return UnsupportedAudio(
        f"the audio: {size >> 20} MiB came and not one sample in them",
        "send a format that can be read as it arrives, such as Ogg, WebM or fragmented MP4",
    )
