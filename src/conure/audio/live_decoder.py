"""Decodes live audio, packet by packet, to mono samples at 16 kHz.

    PCM, G.711:  packet -> samples -> mean of the channels -> 16 kHz
    containers:  packet -> | decoder on its own thread, which reads from a pipe | -> samples at 16 kHz

The samples do not depend on how the bytes are split into packets. Channels may be kept separate.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial, reduce
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np

from conure.audio.av_frames import MAX_LEVEL
from conure.audio.byte_pipe import BytePipe, PipeAbandoned
from conure.audio.containers import index_first
from conure.audio.decoder import FrameReader
from conure.audio.files import AudioReader
from conure.audio.formats import AudioFormat, to_float
from conure.audio.resample import Resampler, Samples
from conure.audio.source import open_pipe
from conure.background import spawn_thread
from conure.constants import SAMPLE_RATE
from conure.errors import UnsupportedAudio

__all__ = ["LiveDecoder"]

BLOCK_SECONDS = 0.02
PATIENCE = 0.05
"""Seconds that a push waits for its samples; later ones are returned by the next push."""
DECODE_TIMEOUT = 30.0
"""Seconds to wait for the end of a container, or for a decoder with a large backlog."""
JOIN_TIMEOUT = 1.0
"""Seconds to wait for the decoder's thread, which may be decoding a frame."""


class LiveDecoder:
    """Decoder of one stream; a context manager. The thread of a container ends with `finish` or `close`.

    Samples are float32 [n], the mean of the channels; with `split` [channels, n] with the channels of the format.
    Channels that a container lacks are silent; surplus ones are dropped.

    `push` and `finish` raise UnsupportedAudio; after that, or after `finish`, only `close` may be called. Not
    thread-safe; decoders are independent of one another.
    """

    def __init__(self, audio_format: AudioFormat, split: bool = False) -> None:
        rows = audio_format.channels if split else None
        self._decoder = (
            _ContainerDecoder(rows) if audio_format.encoding == "container" else _PcmDecoder(audio_format, rows)
        )
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def problems(self) -> list[str]:
        """One line for each part that could not be read; complete after `finish`."""
        return self._decoder.problems

    @property
    def is_full(self) -> bool:
        """Whether the next push would wait for the decoder, up to 30 s; never the case in real time."""
        return self._decoder.is_full

    def push(self, data: bytes) -> Samples:
        """The samples that are available now; n is often 0."""
        self._check_open()
        return self._decoder.push(data)

    def flush(self) -> Samples:
        """The samples that the resampler still holds; more packets may follow. The decoder of a container is not
        flushed."""
        self._check_open()
        return self._decoder.flush()

    def finish(self) -> Samples:
        """The remaining samples. Waits up to 30 s for the decoder of a container."""
        self._check_open()
        self._is_closed = True
        return self._decoder.finish()

    def close(self) -> None:
        """Releases thread and memory at any time; samples that were not returned are lost."""
        self._is_closed = True
        self._decoder.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the stream of audio is finished or closed")


class _PcmDecoder:
    """Raw samples in one of the encodings of `formats`."""

    is_full = False

    def __init__(self, audio_format: AudioFormat, rows: int | None) -> None:
        self.problems: list[str] = []
        self._format = audio_format
        self._rows = rows
        self._frame_bytes = audio_format.frame_bytes
        self._rest = b""
        """The first bytes of a frame (a sample of each channel) that continues in the next packet."""
        self._frames = 0
        self._resampler = self._new_resampler()

    def push(self, data: bytes) -> Samples:
        if self._rest:
            data = self._rest + data
        if surplus := len(data) % self._frame_bytes:
            self._rest, data = data[-surplus:], data[:-surplus]
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
        """[channels, n] -> the samples that are returned."""
        if self._rows:
            return np.ascontiguousarray(channels)
        # Always the mean: the choice of the loudest channel would depend on the sizes of packets.
        mean: Samples = reduce(np.add, channels) * np.float32(1 / len(channels))
        return mean

    def _resample(self, samples: Samples, last: bool = False) -> Samples:
        assert self._resampler
        if self._rows:
            return self._resampler.push(samples, last)
        row: Samples = self._resampler.push(samples[None], last)[0]
        return row

    def flush(self) -> Samples:
        rest = self._drain_resampler()
        self._resampler = self._new_resampler()
        return rest

    def finish(self) -> Samples:
        if self._rest:
            self.problems.append(
                f"the last {len(self._rest)} bytes are left out: a sample of {self._format.encoding} with "
                f"{self._format.channels} channels has {self._frame_bytes} bytes"
            )
        return self._drain_resampler()

    def close(self) -> None:
        self._rest = b""

    def _new_resampler(self) -> Resampler | None:
        rate = self._format.sample_rate
        return Resampler(rate, SAMPLE_RATE, self._rows or 1) if rate != SAMPLE_RATE else None

    def _drain_resampler(self) -> Samples:
        empty = np.empty((self._rows, 0) if self._rows else 0, np.float32)
        return empty if self._resampler is None else self._resample(empty, last=True)

    def _check(self, samples: Samples) -> None:
        if np.abs(samples).max() <= MAX_LEVEL:  # NaN compares false
            return
        invalid = int((~(np.abs(samples) <= MAX_LEVEL)).argmax())
        value = samples[invalid]
        fault = "far beyond full scale, which is 1" if np.isfinite(value) else "not a finite number"
        index = self._frames + invalid // self._format.channels
        seconds = index / self._format.sample_rate
        raise UnsupportedAudio(
            f"the audio: sample {index} (at {seconds:.3f} s) is {value:g}, {fault}",
            "send float32 samples between -1 and 1, or pcm16",
        )


class _ContainerDecoder:
    """An `AudioReader` that reads from a `BytePipe` on a thread, which starts with the first byte."""

    def __init__(self, rows: int | None) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._pipe = BytePipe()
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        return self._pipe.is_full

    def push(self, data: bytes) -> Samples:
        if not data and not self._thread:
            return self._arrange(np.empty(0, np.float32))
        if not self._thread:
            decoding = partial(_decode, self._pipe, self.problems, self._rows)
            self._thread = spawn_thread(decoding, "decoding a container", self._pipe.finish)
        self._pipe.push_bytes(data)
        return self._arrange(self._pipe.take_samples(PATIENCE, DECODE_TIMEOUT))

    def flush(self) -> Samples:
        return self._arrange(np.empty(0, np.float32))

    def finish(self) -> Samples:
        self._pipe.end()
        if not self._thread:
            return self._arrange(np.empty(0, np.float32))
        rest = self._arrange(self._pipe.take_samples(0.0, DECODE_TIMEOUT))
        self._thread.join(JOIN_TIMEOUT)
        if self._pipe.surplus_bytes:
            self.problems.append(f"{self._pipe.surplus_bytes} bytes or more after its end are left out")
        return rest

    def close(self) -> None:
        self._pipe.abandon()
        if self._thread:
            self._thread.join(JOIN_TIMEOUT)

    def _arrange(self, samples: Samples) -> Samples:
        """Interleaved samples of the pipe -> [channels, n] with `split`."""
        return np.ascontiguousarray(samples.reshape(-1, self._rows).T) if self._rows else samples


def _decode(pipe: BytePipe, problems: list[str], rows: int | None) -> None:
    """Decodes all bytes of the pipe; runs on its own thread."""
    try:
        with ExitStack() as stack:
            file = open_pipe(cast(BinaryIO, pipe))
            with index_first(file):
                decoded = FrameReader(file, arriving=True)
                reader = AudioReader(file, decoded, rate=SAMPLE_RATE, split=rows is not None, max_seconds=None, piece=1)
                stack.enter_context(reader)
            for block in reader.blocks(BLOCK_SECONDS):
                pipe.push_samples(_interleaved(block, rows) if rows else block[0])
            problems += reader.problems
            if rows and reader.channels != rows:
                problems.append(f"it has {reader.channels} channels, {rows} were requested")
        pipe.finish(None)
    except PipeAbandoned:
        pipe.finish(None)
    except Exception as error:  # raised again in `push` or `finish`
        pipe.finish(error)


def _interleaved(block: Samples, rows: int) -> Samples:
    """[channels, n] -> [n * rows]."""
    missing = max(0, rows - len(block))
    return np.ascontiguousarray(np.pad(block[:rows], ((0, missing), (0, 0))).T).reshape(-1)
