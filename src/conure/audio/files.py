"""Decodes any recording to samples, incrementally and in constant memory.

    source -> container -> frames -> pieces of float samples -> mixed -> resampled -> blocks

Damaged parts are skipped and reported in `AudioReader.problems`. Gaps in the container's time stamps (a video whose
sound starts late, packets lost on the network, a codec that pauses in silence) are filled with silence, so that times
are those of the recording. Limits apply to decoded samples, not to declared lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain
from types import TracebackType
from typing import Literal, Self

import av
import numpy as np
from av.audio.frame import AudioFrame

from conure.audio.av_frames import MAX_LEVEL, shape_of, to_float
from conure.audio.decoder import FrameReader, clock_time
from conure.audio.resample import Resampler, Samples
from conure.audio.source import CONVERT, Source, SourceFile, open_source
from conure.errors import AudioTooLong, UnsupportedAudio

__all__ = ["AudioReader", "Source", "open_audio"]

PIECE_SAMPLES = 1 << 18
"""Samples (of all channels together) that are converted and resampled at a time if latency does not matter."""


def open_audio(
    source: Source,
    *,
    rate: int = 16_000,
    channels: Literal["mix", "split"] = "mix",
    track: int | None = None,
    max_seconds: float | None = None,
) -> AudioReader:
    """Opens a recording and decodes its first samples, so that a file without any fails here.

    "mix" averages all channels to one; "split" keeps each. `track`: number of an audio track from 1; None chooses the
    default track among those with sound. A file object is read from its start if it is seekable; the caller closes it.
    """
    with ExitStack() as stack:
        file = open_source(source, stack)
        decoded = FrameReader(file, track=track, max_seconds=max_seconds)
        reader = AudioReader(file, decoded, rate=rate, split=channels == "split", max_seconds=max_seconds)
        stack.push(reader.closing.pop_all())
        reader.closing = stack.pop_all()
    return reader


class AudioReader:
    """An open recording; a context manager. `blocks` decodes it once."""

    def __init__(
        self,
        file: SourceFile,
        decoded: FrameReader,
        *,
        rate: int,
        split: bool,
        max_seconds: float | None,
        piece: int = PIECE_SAMPLES,
    ) -> None:
        """`piece`: samples that are converted and resampled at a time; with 1 no frame waits for the next."""
        self.name = file.name
        self.rate = rate
        self.problems = decoded.problems
        """One line for each part that could not be read; complete at the end of `blocks`."""
        self.seconds_read = 0.0
        self._decoded = decoded
        self._max_seconds = max_seconds
        self._piece = piece
        frames = decoded.frames()
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            gap, first = next(frames)
            self.closing = stack.pop_all()
        self._frames = chain([(gap, first)], frames)
        self.duration_hint = decoded.duration_hint
        """Duration that the container declares, in seconds; may be None, an estimate, or wrong."""
        self.source_rate: int = first.sample_rate
        self.source_channels: int = first.layout.nb_channels
        self.channels = self.source_channels if split else 1
        self._split = split

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.closing.close()

    def blocks(self, seconds: float = 10.0) -> Iterator[Samples]:
        """The recording as float32 [channels, n], `seconds` each; the last one is shorter."""
        size = max(1, round(seconds * self.rate))
        parts: list[Samples] = []
        held = 0
        for samples in self._resampled():
            parts.append(samples)
            held += samples.shape[1]
            if held >= size:
                joined = np.concatenate(parts, axis=1)
                rest = held % size
                for start in range(0, held - rest, size):
                    yield self._count(joined[:, start : start + size])
                parts, held = [joined[:, held - rest :]], rest
        if held:
            yield self._count(np.concatenate(parts, axis=1))
        if not self.seconds_read:
            raise UnsupportedAudio(f"{self.name}: is shorter than one sample at {self.rate} Hz", CONVERT)

    def _count(self, block: Samples) -> Samples:
        self.seconds_read += block.shape[1] / self.rate
        return np.ascontiguousarray(block)

    def _resampled(self) -> Iterator[Samples]:
        resampler, from_rate = Resampler(self.source_rate, self.rate, self.channels), self.source_rate
        empty = np.empty((self.channels, 0), np.float32)
        for samples, rate in self._pieces():
            if rate != from_rate:
                yield resampler.push(empty, last=True)
                resampler, from_rate = Resampler(rate, self.rate, self.channels), rate
            yield resampler.push(self._arrange(samples))
        yield resampler.push(empty, last=True)

    def _arrange(self, samples: Samples) -> Samples:
        """[channels of the source, n] -> [channels of the reader, n]."""
        if not self._split:
            mixed, is_cancelled = _mix(samples)
            if is_cancelled:
                self._decoded.note("channels cancel each other out (opposite phase): the loudest is used there")
            return mixed
        missing = self.channels - samples.shape[0]
        if missing < 0:
            self._decoded.note(f"has {samples.shape[0]} channels in places: those after {self.channels} are left out")
        return np.pad(samples[: self.channels], ((0, max(0, missing)), (0, 0)))

    def _pieces(self) -> Iterator[tuple[Samples, int]]:
        """Samples [channels of the source, n] and their rate; gaps of the recording are silence."""
        frames: list[AudioFrame] = []
        held = 0
        for gap, frame in self._frames:
            if frames and (gap or held >= self._piece or shape_of(frame) != shape_of(frames[0])):
                yield self._convert(frames), frames[0].sample_rate
                frames, held = [], 0
            self._check_length()
            if gap:
                yield from _silence(gap, frame)
            frames.append(frame)
            held += frame.samples * frame.layout.nb_channels
        yield self._convert(frames), frames[0].sample_rate

    def _check_length(self) -> None:
        limit = self._max_seconds
        if limit is not None and self._decoded.position > limit + 1e-6:
            length = f"{limit / 3600:g} hours" if limit >= 3600 else f"{limit:g} seconds"
            raise AudioTooLong(
                f"{self.name}: is longer than the limit of {length}", "raise the limit (max_hours) or cut the recording"
            )

    def _convert(self, frames: list[AudioFrame]) -> Samples:
        try:
            samples = to_float(frames)
        except av.FFmpegError as error:
            layout = frames[0].layout.name
            raise UnsupportedAudio(f"{self.name}: has an unsupported channel layout ({layout})", CONVERT) from error
        peak = np.abs(samples).max()
        if not peak <= MAX_LEVEL:  # NaN compares false
            fault = "far beyond full scale" if np.isfinite(peak) else "not finite numbers (NaN or infinity)"
            where = clock_time(self._decoded.position)
            raise UnsupportedAudio(f"{self.name}: contains samples that are {fault}, before {where}", CONVERT)
        return samples


def _silence(seconds: float, frame: AudioFrame) -> Iterator[tuple[Samples, int]]:
    """Silence in pieces, with the channels and the rate of the frame."""
    channels, remaining = frame.layout.nb_channels, round(seconds * frame.sample_rate)
    while remaining:
        count = min(remaining, PIECE_SAMPLES // channels)
        yield np.zeros((channels, count), np.float32), frame.sample_rate
        remaining -= count


def _mix(samples: Samples) -> tuple[Samples, bool]:
    """The average of the channels, [1, n], and False; or the loudest channel and True if the average loses the speech.

    Uncorrelated channels, or several silent ones and one with speech, keep 1 / channels of their mean power when
    averaged. Much less remains only if they have opposite phases.
    """
    if len(samples) == 1:
        return samples, False
    mixed = samples.mean(axis=0, keepdims=True)
    powers = np.einsum("cn,cn->c", samples, samples)
    if np.vdot(mixed, mixed) * len(samples) * 8 < powers.mean():
        loudest = int(powers.argmax())
        return samples[loudest : loudest + 1], True
    return mixed, False
