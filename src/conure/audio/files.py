"""Any recording to samples, read from disk as it goes, in memory that does not grow with its length.

    source -> container -> frames -> pieces of float samples -> mixed -> resampled -> blocks

What can be decoded is decoded, and what cannot is said in `AudioReader.problems`. Where the container's time
stamps leave a gap (a video whose sound starts late, packets lost on the network, a codec that sends nothing in
pauses) there is silence, so that times stay those of the recording. Limits hold for what was decoded, not for
what a header says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Literal, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from conure.audio.containers import (
    CONVERT,
    Source,
    SourceFile,
    announced_seconds,
    choose_stream,
    missing_end,
    open_container,
    open_source,
)
from conure.audio.resample import Resampler, Samples
from conure.errors import AudioTooLong, UnsupportedAudio

__all__ = ["AudioReader", "Source", "open_audio"]

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
MOST_CHANNELS = 64
LOUDEST = 1e6
"""Full scale is 1; far above it the power spectrum would overflow float32."""

PIECE = 1 << 18
"""Samples (all channels counted) that are converted and resampled at a time, where nobody waits for them."""
SHORTEST_GAP, LONGEST_GAP = 0.1, 3600.0
"""Seconds by which time stamps run ahead: less is jitter, more is a clock that was set anew."""
SHORTER_BY = 0.25
"""Seconds that may be missing from the announced length; encoders pad, edit lists trim."""

FORMATS: dict[str, tuple[type[np.generic], int, float]] = {
    "u8": (np.uint8, 128, 2.0**-7),
    "s16": (np.int16, 0, 2.0**-15),
    "s32": (np.int32, 0, 2.0**-31),
    "s64": (np.int64, 0, 2.0**-63),
    "flt": (np.float32, 0, 1.0),
    "dbl": (np.float64, 0, 1.0),
}
"""FFmpeg's sample formats: type, silence, scale. Planar ones have a "p" behind their name."""


def open_audio(
    source: Source,
    *,
    rate: int = 16_000,
    channels: Literal["mix", "split"] = "mix",
    max_seconds: float | None = None,
) -> AudioReader:
    """Opens a recording and decodes its first samples, so that a file without any fails here.

    "mix" makes one channel, the average of all; "split" keeps each. A file object is read from its start
    if it can seek, and stays the caller's to close.
    """
    with ExitStack() as stack:
        file = open_source(source, stack)
        problem = missing_end(file)
        container = stack.enter_context(open_container(file))
        reader = AudioReader(file, container, rate=rate, split=channels == "split", max_seconds=max_seconds)
        if problem:
            reader.problems.append(problem)
        reader.closing = stack.pop_all()
    return reader


class AudioReader:
    """An open recording, and a context manager. `blocks` goes through it once."""

    def __init__(
        self,
        file: SourceFile,
        container: InputContainer,
        *,
        rate: int,
        split: bool,
        max_seconds: float | None,
        piece: int = PIECE,
    ) -> None:
        """`piece`: samples that are converted and resampled at a time; 1 lets no frame wait for the next ones."""
        self.name = file.name
        self.rate = rate
        self.problems: list[str] = []
        """What could not be read, a line each; complete once `blocks` has come to its end."""
        self.seconds_read = 0.0
        self.closing = ExitStack()
        self._file = file
        self._container = container
        self._stream = choose_stream(file.name, container)
        self._max_seconds = max_seconds
        self._piece = piece
        self._clock = _Clock(container.start_time)
        self._damaged: list[float] = []
        self.duration_hint, self._hint_is_exact = announced_seconds(container, self._stream)
        """Seconds as the container tells them: None, an estimate, or wrong."""
        frames = self._decode()
        first = next(frames, None)
        if first is None:
            raise UnsupportedAudio(f"{file.name}: nothing in it can be decoded, or it holds no samples", CONVERT)
        self._frames = chain([first], frames)
        self.source_rate: int = first.sample_rate
        self.source_channels: int = first.layout.nb_channels
        self.channels = self.source_channels if split else 1
        self._split = split
        if len(container.streams.audio) > 1:
            self._note(f"holds {len(container.streams.audio)} audio streams: only the first is read")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.closing.close()

    def blocks(self, seconds: float = 10.0) -> Iterator[Samples]:
        """The recording as float32 [channels, n] of so many seconds each; the last is shorter."""
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
        nothing = np.empty((self.channels, 0), np.float32)
        for samples, rate in self._pieces():
            if rate != from_rate:
                yield resampler.push(nothing, last=True)
                resampler, from_rate = Resampler(rate, self.rate, self.channels), rate
            yield resampler.push(self._arrange(samples))
        yield resampler.push(nothing, last=True)

    def _arrange(self, samples: Samples) -> Samples:
        """[channels of the source, n] -> [channels of the reader, n]."""
        if not self._split:
            mixed, cancelled = _mix(samples)
            if cancelled:
                self._note("channels cancel each other out (opposite phase): the loudest is taken there")
            return mixed
        missing = self.channels - samples.shape[0]
        if missing < 0:
            self._note(f"has {samples.shape[0]} channels in places: those after {self.channels} are left out")
        return np.pad(samples[: self.channels], ((0, max(0, missing)), (0, 0)))

    def _pieces(self) -> Iterator[tuple[Samples, int]]:
        """Samples [channels of the source, n] and their rate, with silence where the recording has gaps."""
        frames: list[AudioFrame] = []
        held = 0
        for frame in self._frames:
            gap = self._clock.gap_before(frame)
            if frames and (gap or held >= self._piece or _shape(frame) != _shape(frames[0])):
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
        if limit is not None and self._clock.reached > limit + 1e-6:
            told = f"{limit / 3600:g} hours" if limit >= 3600 else f"{limit:g} seconds"
            raise AudioTooLong(
                f"{self.name}: is longer than the limit of {told}", "raise the limit (max_hours) or cut the recording"
            )

    def _convert(self, frames: list[AudioFrame]) -> Samples:
        try:
            samples = _to_float(frames)
        except av.FFmpegError as error:
            layout = frames[0].layout.name
            raise UnsupportedAudio(f"{self.name}: has channels in an order not known ({layout})", CONVERT) from error
        peak = np.abs(samples).max()
        if not peak <= LOUDEST:  # NaN is neither below nor above
            fault = "far beyond full scale" if np.isfinite(peak) else "not finite numbers (NaN or infinity)"
            where = _told(self._clock.reached)
            raise UnsupportedAudio(f"{self.name}: holds samples that are {fault}, before {where}", CONVERT)
        return samples

    def _decode(self) -> Iterator[AudioFrame]:
        """Frames that hold samples, as many as can be had."""
        error: OSError | av.FFmpegError | None = None
        try:
            for packet in self._container.demux(self._stream):
                yield from self._decode_packet(packet)
        except IndexError:
            pass  # PyAV looks for a stream that came up late, when ours has come to its end
        except av.FFmpegError as stopped:
            error = stopped
            yield from self._decode_packet(None)
        if error := self._file.error or error:
            self._note(f"cannot be read beyond {_told(self._clock.reached)}: {error.strerror}")
        self._note_losses()

    def _decode_packet(self, packet: av.Packet[AudioStream] | None) -> Iterator[AudioFrame]:
        """None takes out what the decoder still holds."""
        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError:
            self._damaged.append(self._clock.reached)
            return
        for frame in frames:
            if frame.samples:
                _check_shape(self.name, frame)
                yield frame

    def _note_losses(self) -> None:
        if self._damaged:
            count = f"{len(self._damaged)} damaged packets" if len(self._damaged) > 1 else "a damaged packet"
            self._note(f"{count} left out, from {_told(self._damaged[0])} on")
        if self._clock.gaps:
            count = f"{len(self._clock.gaps)} gaps" if len(self._clock.gaps) > 1 else "a gap"
            where = _told(self._clock.gaps[0])
            self._note(f"{count} in the recording, from {where} on: {self._clock.filled:.1f} s of silence put there")
        if self._clock.leaps:
            self._note(f"its clock leaps ahead at {_told(self._clock.leaps[0])}: not followed")
        hint = self.duration_hint
        if hint and self._hint_is_exact and hint - self._clock.reached > SHORTER_BY:
            self._note(f"cut off: {_told(hint)} announced, {_told(self._clock.reached)} there")

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class _Clock:
    """Time stamps held against the samples that came. All in seconds."""

    def __init__(self, start_us: int | None) -> None:
        self.reached = 0.0
        """End of the samples so far, gaps included."""
        self.filled = 0.0
        self.gaps: list[float] = []
        self.leaps: list[float] = []
        self._origin = None if start_us is None else start_us / av.time_base

    def gap_before(self, frame: AudioFrame) -> float:
        """Silence that belongs before the frame. Its own length is added to `reached`."""
        gap = self._ahead(frame.time) if frame.time is not None else 0.0
        if gap and self.reached:  # a sound that starts late has lost nothing
            self.gaps.append(self.reached)
            self.filled += gap
        self.reached += gap + frame.samples / frame.sample_rate
        return gap

    def _ahead(self, time: float) -> float:
        if self._origin is None:
            self._origin = time
        ahead = time - self._origin - self.reached
        if abs(ahead) < SHORTEST_GAP:
            return 0.0
        if 0 < ahead <= LONGEST_GAP:
            return ahead
        self._origin += ahead
        if ahead > 0:
            self.leaps.append(self.reached)
        return 0.0


def _told(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{seconds:04.1f}"


def _shape(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _check_shape(name: str, frame: AudioFrame) -> None:
    if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
        raise UnsupportedAudio(
            f"{name}: has {frame.sample_rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are read", CONVERT
        )
    if frame.layout.nb_channels > MOST_CHANNELS:
        raise UnsupportedAudio(f"{name}: has {frame.layout.nb_channels} channels; {MOST_CHANNELS} are read", CONVERT)


def _silence(seconds: float, frame: AudioFrame) -> Iterator[tuple[Samples, int]]:
    """In pieces like those of the frame."""
    channels, left = frame.layout.nb_channels, round(seconds * frame.sample_rate)
    while left:
        count = min(left, PIECE // channels)
        yield np.zeros((channels, count), np.float32), frame.sample_rate
        left -= count


def _to_float(frames: list[AudioFrame]) -> Samples:
    """Frames of one shape -> [channels, n]."""
    if frames[0].format.is_planar and frames[0].layout.nb_channels > 8:
        frames = _packed(frames)
    kind, silence, scale = FORMATS[frames[0].format.name.removesuffix("p")]
    samples = np.empty((frames[0].layout.nb_channels, sum(frame.samples for frame in frames)), np.float32)
    start = 0
    with np.errstate(over="ignore"):
        for frame in frames:
            _copy(frame, kind, samples[:, start : start + frame.samples])
            start += frame.samples
    if silence:
        samples -= silence
    if scale != 1:
        samples *= scale
    return samples


def _copy(frame: AudioFrame, kind: type[np.generic], to: Samples) -> None:
    channels, count = to.shape
    planes: tuple[Any, ...] = frame.planes  # buffers, though their types do not say so; at times one too many
    if frame.format.is_planar:
        for channel in range(channels):
            to[channel] = np.frombuffer(planes[channel], kind, count)
    else:
        to[:] = np.frombuffer(planes[0], kind, count * channels).reshape(count, channels).T


def _packed(frames: list[AudioFrame]) -> list[AudioFrame]:
    """The same samples interleaved: PyAV reads past the end of a list of more than eight planes."""
    packer = av.AudioResampler(format=frames[0].format.packed)
    return [packed for frame in [*frames, None] for packed in packer.resample(frame)]


def _mix(samples: Samples) -> tuple[Samples, bool]:
    """The average of the channels, [1, n]; or the loudest alone, and True, where the average loses the speech.

    Channels that have nothing in common, or all but one silent, keep 1 / channels of their mean power when
    averaged. Far less than that is left only where they are each other's opposite.
    """
    if len(samples) == 1:
        return samples, False
    mixed = samples.mean(axis=0, keepdims=True)
    powers = np.einsum("cn,cn->c", samples, samples)
    if np.vdot(mixed, mixed) * len(samples) * 8 < powers.mean():
        loudest = int(powers.argmax())
        return samples[loudest : loudest + 1], True
    return mixed, False
