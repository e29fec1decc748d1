"""Audio as it arrives on a wire, packet by packet, to mono samples at 16 kHz.

    PCM, G.711:  packet -> samples -> mean of the channels -> 16 kHz
    containers:  packet -> | a decoder that pulls, on a thread of its own | -> samples at 16 kHz

However the bytes are cut into packets, the samples are the same. Channels may be kept apart as well.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial, reduce
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np

from conure.audio.av_frames import LOUDEST
from conure.audio.byte_pipe import BytePipe, PipeAbandoned
from conure.audio.containers import index_first
from conure.audio.decoder import FrameReader
from conure.audio.files import AudioReader
from conure.audio.formats import AudioFormat, to_float
from conure.audio.resample import Resampler, Samples
from conure.audio.source import open_pipe
from conure.background import spawn_thread
from conure.errors import UnsupportedAudio

__all__ = ["LiveDecoder"]

RATE = 16_000
BLOCK_SECONDS = 0.02
PATIENCE = 0.05
"""Seconds that a push may wait for its own samples; what takes longer comes with the next push."""
LONGEST_WAIT = 30.0
"""Seconds for the end of a container, or for a decoder that has fallen far behind."""
LEAVING = 1.0
"""Seconds to let a frame be finished that is just being decoded."""


class LiveDecoder:
    """One stream of bytes, and a context manager: a container's thread ends with `finish` or `close`.

    Samples are float32 [n], the mean of the channels; with `split` [channels, n], as many as the format says. A
    container that has fewer is silent in the rest, and of more the first are taken.

    `push` and `finish` raise UnsupportedAudio; after that, or the end, only `close` is of use. Of one thread at a
    time; any number of decoders may work at once.
    """

    def __init__(self, audio_format: AudioFormat, split: bool = False) -> None:
        rows = audio_format.channels if split else None
        self._decoder = _Container(rows) if audio_format.encoding == "container" else _Plain(audio_format, rows)
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def problems(self) -> list[str]:
        """What could not be read, a line each; complete after `finish`."""
        return self._decoder.problems

    @property
    def is_full(self) -> bool:
        """Whether the next push would wait for the decoder, up to 30 s; at the pace of speech it never does."""
        return self._decoder.is_full

    def push(self, data: bytes) -> Samples:
        """What has become available; n is often 0."""
        self._check_open()
        return self._decoder.push(data)

    def flush(self) -> Samples:
        """What a filter holds back of what came; more may follow. A container's decoder keeps what it has."""
        self._check_open()
        return self._decoder.flush()

    def finish(self) -> Samples:
        """The rest. Waits for a container's decoder, 30 s at most."""
        self._check_open()
        self._is_over = True
        return self._decoder.finish()

    def close(self) -> None:
        """Gives thread and memory back at once, also midway; what was not taken is gone."""
        self._is_over = True
        self._decoder.close()

    def _check_open(self) -> None:
        if self._is_over:
            raise ValueError("the stream of audio is finished or closed")


class _Plain:
    """Samples one after the other, in one of the encodings that numpy reads."""

    is_full = False

    def __init__(self, audio_format: AudioFormat, rows: int | None) -> None:
        self.problems: list[str] = []
        self._format = audio_format
        self._rows = rows
        self._frame_bytes = audio_format.frame_bytes
        self._rest = b""
        """The part of a frame (a sample of each channel) whose other part is in the next packet."""
        self._frames = 0
        self._resampler = self._new_resampler()

    def push(self, data: bytes) -> Samples:
        if self._rest:
            data = self._rest + data
        if cut := len(data) % self._frame_bytes:
            self._rest, data = data[-cut:], data[:-cut]
        else:
            self._rest = b""
        samples = to_float(data, self._format.encoding)
        if self._format.encoding == "f32" and len(samples):
            self._check(samples)
        if self._format.channels > 1 or self._rows:
            samples = self._arrange(samples.reshape(-1, self._format.channels).T)
        self._frames += samples.shape[-1]
        if self._resampler is None or not samples.size:
            return samples
        return self._resample(samples)

    def _arrange(self, channels: Samples) -> Samples:
        """[channels, n] as they are to be given."""
        if self._rows:
            return np.ascontiguousarray(channels)
        # a plain mean: which channel is the loudest would depend on how packets were cut
        mean: Samples = reduce(np.add, channels) * np.float32(1 / len(channels))
        return mean

    def _resample(self, samples: Samples, last: bool = False) -> Samples:
        assert self._resampler
        if self._rows:
            return self._resampler.push(samples, last)
        row: Samples = self._resampler.push(samples[None], last)[0]
        return row

    def flush(self) -> Samples:
        rest = self._held_back()
        self._resampler = self._new_resampler()
        return rest

    def finish(self) -> Samples:
        if self._rest:
            self.problems.append(
                f"the last {len(self._rest)} bytes are left out: a sample of {self._format.encoding} with "
                f"{self._format.channels} channels has {self._frame_bytes}"
            )
        return self._held_back()

    def close(self) -> None:
        self._rest = b""

    def _new_resampler(self) -> Resampler | None:
        rate = self._format.sample_rate
        return Resampler(rate, RATE, self._rows or 1) if rate != RATE else None

    def _held_back(self) -> Samples:
        nothing = np.empty((self._rows, 0) if self._rows else 0, np.float32)
        return nothing if self._resampler is None else self._resample(nothing, last=True)

    def _check(self, samples: Samples) -> None:
        if np.abs(samples).max() <= LOUDEST:  # NaN is neither below nor above
            return
        bad = int((~(np.abs(samples) <= LOUDEST)).argmax())
        value = samples[bad]
        fault = "far beyond full scale, which is 1" if np.isfinite(value) else "not a finite number"
        place = self._frames + bad // self._format.channels
        seconds = place / self._format.sample_rate
        raise UnsupportedAudio(
            f"the audio: sample {place} (at {seconds:.3f} s) is {value:g}, {fault}",
            "send float32 samples between -1 and 1, or pcm16",
        )


class _Container:
    """The file reader at the far end of a handover. Its thread starts with the first byte."""

    def __init__(self, rows: int | None) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._handover = BytePipe()
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        return self._handover.is_full

    def push(self, data: bytes) -> Samples:
        if not data and not self._thread:
            return self._arrange(np.empty(0, np.float32))
        if not self._thread:
            decoding = partial(_decode, self._handover, self.problems, self._rows)
            self._thread = spawn_thread(decoding, "decoding a container", self._handover.finish)
        self._handover.push_bytes(data)
        return self._arrange(self._handover.take_samples(PATIENCE, LONGEST_WAIT))

    def flush(self) -> Samples:
        return self._arrange(np.empty(0, np.float32))

    def finish(self) -> Samples:
        self._handover.end()
        if not self._thread:
            return self._arrange(np.empty(0, np.float32))
        rest = self._arrange(self._handover.take_samples(0.0, LONGEST_WAIT))
        self._thread.join(LEAVING)
        if self._handover.left_over:
            self.problems.append(f"{self._handover.left_over} bytes or more after its end are left out")
        return rest

    def close(self) -> None:
        self._handover.abandon()
        if self._thread:
            self._thread.join(LEAVING)

    def _arrange(self, samples: Samples) -> Samples:
        """They are handed over interleaved."""
        return np.ascontiguousarray(samples.reshape(-1, self._rows).T) if self._rows else samples


def _decode(handover: BytePipe, problems: list[str], rows: int | None) -> None:
    """From the first byte to the last, as the file reader would; on a thread of its own."""
    try:
        with ExitStack() as stack:
            file = open_pipe(cast(BinaryIO, handover))
            with index_first(file):
                decoded = FrameReader(file, arriving=True)
                reader = AudioReader(file, decoded, rate=RATE, split=rows is not None, max_seconds=None, piece=1)
                stack.enter_context(reader)
            for block in reader.blocks(BLOCK_SECONDS):
                handover.push_samples(_interleaved(block, rows) if rows else block[0])
            problems += reader.problems
            if rows and reader.channels != rows:
                problems.append(f"it has {reader.channels} channels, and {rows} were asked for")
        handover.finish(None)
    except PipeAbandoned:
        handover.finish(None)
    except Exception as error:  # raised again where the bytes are pushed: none is lost with the thread
        handover.finish(error)


def _interleaved(block: Samples, rows: int) -> Samples:
    """[channels, n] -> [n * rows]."""
    missing = max(0, rows - len(block))
    return np.ascontiguousarray(np.pad(block[:rows], ((0, missing), (0, 0))).T).reshape(-1)
