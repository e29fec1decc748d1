"""A pipe between a caller that pushes bytes and a decoder that pulls them on its own thread; samples flow back.

    push_bytes ──> unread bytes ──> read          decoder thread
    take_samples <── decoded samples <── push_samples

Both directions are bounded: above a limit of unread bytes the caller waits, above a limit of samples the decoder does,
even for a recording that decodes to hours from a few bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from conure.audio.resample import Samples
from conure.errors import UnsupportedAudio

__all__ = ["PipeAbandoned", "BytePipe"]

MAX_UNREAD_BYTES = 1 << 18
"""Unread bytes above which a push waits for the decoder."""
MAX_WAITING_SAMPLES = 60 * 16_000
"""Samples that are not yet taken above which the decoder waits."""
MAX_TAKEN_SAMPLES = 15 * 60 * 16_000
"""Limit of the samples that one call takes: FLAC packs hours of silence into a packet."""
MAX_BYTES_WITHOUT_SAMPLES = 1 << 24
"""Bytes that may be read in succession without a sample; cover pictures and indexes are smaller."""


class PipeAbandoned(Exception):
    """Raised in the decoder when the caller has abandoned the pipe."""


class BytePipe:
    """The caller's side: `push_bytes`, `take_samples`, `end`, `abandon`. The decoder's: `read`, `push_samples`,
    `finish`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._unread = bytearray()
        self._bytes_without_samples = 0
        """Bytes read since the last sample."""
        self._waiting: list[Samples] = []
        self._waiting_size = 0
        self._is_waiting_for_bytes = False
        """The decoder has processed all bytes and waits for more."""
        self._has_ended = False
        self._is_abandoned = False
        self._is_finished = False
        self.surplus_bytes = 0
        """Bytes after the end that the decoder found."""
        self._no_samples_error: UnsupportedAudio | None = None
        self._error: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next push would wait for the decoder."""
        return len(self._unread) > MAX_UNREAD_BYTES

    # --- the caller's side

    def push_bytes(self, data: bytes) -> None:
        with self._changed:
            if self._is_finished:
                self.surplus_bytes += len(data)
            else:
                self._unread += data
                self._changed.notify_all()

    def end(self) -> None:
        """Marks the end of the bytes."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Ends the decoder's input and discards its output."""
        with self._changed:
            self._is_abandoned = True
            self._unread.clear()
            self._waiting.clear()
            self._changed.notify_all()

    def take_samples(self, patience: float, timeout: float) -> Samples:
        """Samples [n], as soon as the decoder has processed all bytes.

        After `patience` seconds the samples so far are returned and the rest is left to the next call. If too many
        bytes are unread, or the end is marked, it waits up to `timeout` seconds more.
        Raises the decoder's error, and UnsupportedAudio if a limit of time or size is exceeded.
        """
        taken: list[Samples] = []
        with self._changed:
            done = self._wait(lambda: self._is_idle, patience, taken)
            if not done and (self._has_ended or self.is_full):
                done = self._wait(lambda: self._is_idle if self._has_ended else not self.is_full, timeout, taken)
                if not done:
                    raise UnsupportedAudio(
                        f"the audio is not decoded after {timeout:g} s, {len(self._unread)} bytes are unread",
                        "send it in smaller packets, in real time",
                    )
            if self._error:
                raise self._error
        return np.concatenate(taken) if taken else np.empty(0, np.float32)

    @property
    def _is_idle(self) -> bool:
        return self._is_finished or (self._is_waiting_for_bytes and not self._unread and not self._has_ended)

    def _wait(self, done: Callable[[], bool], seconds: float, taken: list[Samples]) -> bool:
        """Collects samples until `done` or the time is over. Returns whether it is done."""
        deadline = time.monotonic() + seconds
        while True:
            has_changed = self._changed.wait_for(lambda: done() or self._is_output_full, deadline - time.monotonic())
            finished = done()
            taken += self._waiting
            self._waiting, self._waiting_size = [], 0
            self._changed.notify_all()
            if sum(map(len, taken)) > MAX_TAKEN_SAMPLES:
                raise UnsupportedAudio(
                    f"one packet decodes to more than {MAX_TAKEN_SAMPLES // 16_000} s of audio",
                    "send it in smaller packets",
                )
            if finished or not has_changed:
                return finished

    @property
    def _is_output_full(self) -> bool:
        return self._waiting_size > MAX_WAITING_SAMPLES

    # --- the decoder's side

    def read(self, size: int) -> bytes:
        """Like `read` of a file: waits for bytes and returns none only at the end.

        An abandoned pipe and bytes that decode to no samples are the end, too. Nothing is raised here: FFmpeg would
        call again, and PyAV would print the pending error.
        """
        with self._changed:
            if not self._unread:
                self._is_waiting_for_bytes = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._unread or self._has_ended or self._is_abandoned)
                self._is_waiting_for_bytes = False
            if self._bytes_without_samples > MAX_BYTES_WITHOUT_SAMPLES:
                self._no_samples_error = _no_samples_error(self._bytes_without_samples)
            if self._is_abandoned or self._no_samples_error:
                return b""
            data = bytes(self._unread[:size])
            del self._unread[:size]
            self._bytes_without_samples += len(data)
            if not self.is_full:
                self._changed.notify_all()
            return data

    def seekable(self) -> bool:
        return False

    def push_samples(self, samples: Samples) -> None:
        """Hands over samples [n]; waits while too many are not yet taken. Raises PipeAbandoned."""
        with self._changed:
            self._bytes_without_samples = 0
            self._waiting.append(samples)
            self._waiting_size += len(samples)
            if self._is_output_full:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_abandoned or not self._is_output_full)
            if self._is_abandoned:
                raise PipeAbandoned

    def finish(self, error: Exception | None) -> None:
        """Marks the end of decoding, or its failure."""
        with self._changed:
            self._is_finished = True
            self._error = self._no_samples_error or error
            self.surplus_bytes += len(self._unread)
            self._unread.clear()
            self._changed.notify_all()


def _no_samples_error(size: int) -> UnsupportedAudio:
    return UnsupportedAudio(
        f"the audio: no sample in the first {size >> 20} MiB",
        "send a format that can be decoded while it arrives, such as Ogg, WebM or fragmented MP4",
    )
