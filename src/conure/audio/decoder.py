"""The frames of a source, recording after recording, each with the silence that belongs before it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from conure.audio.av_frames import check_shape
from conure.audio.containers import DECODING, FRAME_LIMIT, announced_seconds, open_container
from conure.audio.extent import Extent, has_extent
from conure.audio.parts import SourcePart, parts_of, rewind
from conure.audio.source import CONVERT, SourceFile
from conure.audio.timestamps import TimestampClock, timestamp_use
from conure.audio.tracks import Packets, Track, TrackSurvey, decode, tracks_of
from conure.errors import AudioNotFound, ConureError, NoSuchTrack, UnsupportedAudio

__all__ = ["FrameReader", "clock_time"]

MOST_PARTS = 10_000
"""Recordings that are read of one source."""
SHORTER_BY = 0.25
"""Seconds that may be missing from the announced length; encoders pad, edit lists trim."""
SHORTER_ELSEWHERE = 0.1
"""Of other containers than MP4."""
SHORTER_BY_SAMPLES = 0.01
"""Of those that count samples, without any loss in their codec."""
LOSSLESS = ("ape", "flac", "sox", "tak", "tta", "wv")


class FrameReader:
    """`frames` goes through it once. What cannot be read is noted, unless nothing at all can be."""

    def __init__(
        self, file: SourceFile, *, track: int | None = None, most_seconds: float | None = None, arriving: bool = False
    ) -> None:
        """`track`: of several, from 1; without it one is chosen. `arriving`: samples are wanted as soon as may be."""
        self.problems: list[str] = []
        """Complete at the end."""
        self.duration_hint: float | None = None
        """Seconds as the container tells them: None, an estimate, or wrong."""
        self._file = file
        self._track = track
        self._most_seconds = most_seconds
        self._arriving = arriving
        self._clock = TimestampClock()
        self._damaged: list[float] = []
        self._has_begun = False

    @property
    def position(self) -> float:
        """Seconds up to the end of the last frame."""
        return self._clock.position

    def frames(self) -> Generator[tuple[float, AudioFrame], None, None]:
        """Raises UnsupportedAudio and AudioNotFound where there is none."""
        failed: ConureError | None = None
        before: SourcePart | None = None
        missing: list[str] = []
        for number, part in enumerate(parts_of(self._file)):
            missing += _missing(before)
            if number == MOST_PARTS:
                missing.append(f"holds more than {MOST_PARTS} recordings: the others are left out")
                before = None
                break
            try:
                yield from self._part(part)
            except (UnsupportedAudio, AudioNotFound, NoSuchTrack) as error:
                if self._arriving and not self._has_begun:
                    raise
                failed = failed or error
                if self._has_begun:
                    self.note(f"what comes after {clock_time(self.position)} cannot be read: {self._bare(error)}")
            before = part
        missing += _missing(before)
        if not self._has_begun:
            raise self._nothing(failed, missing)
        self._note_losses()
        for problem in missing:
            self.note(problem)

    def _nothing(self, failed: ConureError | None, missing: list[str]) -> ConureError:
        if failed is None:
            nothing = f"{self._file.name}: nothing in it can be decoded, or it holds no samples"
            failed = UnsupportedAudio(nothing, CONVERT)
        return type(failed)(f"{failed.message} ({missing[0]})", failed.hint) if missing else failed

    def _bare(self, error: ConureError) -> str:
        return error.message.removeprefix(f"{self._file.name}: ")

    def _part(self, part: SourcePart) -> Iterator[tuple[float, AudioFrame]]:
        with ExitStack() as stack:
            container, tracks, packets = self._opened(part, stack, self._track)
            chosen, held = tracks[0], list[AudioFrame]()
            self._note_undecodable(container)
            if len(tracks) > 1:
                survey = TrackSurvey(self._file.name, tracks, part.file.seekable(), self._most_seconds)
                told = len(self.problems)
                chosen = survey.choose(packets)
                held, damage = survey.decoded_frames(chosen)
                if not survey.holds_all:
                    del self.problems[told:]  # they are found again
                    stack.close()
                    rewind(part.file)
                    container, tracks, packets = self._opened(part, stack, chosen.number)
                    chosen = tracks[0]
                self._damaged += [self.position] * damage
                self.note(survey.describe_choice())
            yield from self._stamped(part, container, chosen.stream, held, packets)

    def _note_undecodable(self, container: InputContainer) -> None:
        unread = [str(number) for number, stream in enumerate(container.streams.audio, 1) if not stream.codec_context]
        if unread and self._track is None:
            self.note(f"audio tracks that no decoder is there for are left out: {', '.join(unread)}")

    def _opened(
        self, part: SourcePart, stack: ExitStack, track: int | None
    ) -> tuple[InputContainer, list[Track], Packets]:
        container = stack.enter_context(open_container(self._file, part, self._arriving))
        tracks = tracks_of(self._file.name, container, track)
        streams = [one.stream for one in tracks]
        for stream in streams:
            stream.codec_context.options = FRAME_LIMIT | DECODING.get(container.format.name, {})
        return container, tracks, self._packets(part, container, streams)

    def _packets(self, part: SourcePart, container: InputContainer, streams: list[AudioStream]) -> Packets:
        """None takes out what a decoder still holds."""
        error: OSError | av.FFmpegError | None = None
        extent = Extent() if has_extent(part, container.format.name) else None
        try:
            for packet in container.demux() if extent else container.demux(streams):
                if extent:
                    extent.add(packet)
                if not extent or packet.stream in streams:
                    yield cast(AudioStream, packet.stream), cast("Packet[AudioStream]", packet)
        except IndexError:
            pass  # PyAV looks for a stream that came up late, when ours has come to its end
        except av.FFmpegError as stopped:
            error = stopped
            yield from ((stream, None) for stream in streams)
        if extent and (problem := extent.problem(part)):
            self.note(problem)
        if error := self._file.error or error:
            self.note(f"cannot be read beyond {clock_time(self.position)}: {error.strerror}")

    def _stamped(
        self, part: SourcePart, container: InputContainer, stream: AudioStream, held: list[AudioFrame], packets: Packets
    ) -> Iterator[tuple[float, AudioFrame]]:
        """Frames of one stream: some that were decoded before, and those of the packets that are of it."""
        begun, leapt = self.position, self._clock.leapt
        seconds, is_exact = announced_seconds(container, stream)
        if self.duration_hint is None:
            self.duration_hint = seconds if part.seconds is None else part.seconds
        self._clock.begin(container.start_time, timestamp_use(container))
        for frame in chain(held, self._decode(stream, packets)):
            check_shape(self._file.name, frame)
            self._has_begun = True
            yield self._clock.gap_before(frame), frame
        here = self.position - begun
        left_out = self._clock.leapt - leapt
        if _kind(container) not in LOSSLESS:
            left_out += max(0, container.start_time or 0) / av.time_base
        if seconds and is_exact and not part.missing and seconds - here - left_out > _may_lack(container):
            part.missing = f"cut off: {clock_time(seconds)} announced, {clock_time(here)} there"

    def _decode(self, stream: AudioStream, packets: Packets) -> Iterator[AudioFrame]:
        for of_stream, packet in packets:
            if of_stream is stream:
                frames = decode(stream, packet)
                if frames is None:
                    self._damaged.append(self.position)
                yield from frames or ()

    def _note_losses(self) -> None:
        clock = self._clock
        if self._damaged:
            count = f"{len(self._damaged)} damaged packets" if len(self._damaged) > 1 else "a damaged packet"
            self.note(f"{count} left out, from {clock_time(self._damaged[0])} on")
        if clock.gaps:
            count = f"{len(clock.gaps)} gaps" if len(clock.gaps) > 1 else "a gap"
            first = clock_time(clock.gaps[0])
            self.note(f"{count} in the recording, from {first} on: {clock.filled:.1f} s of silence put there")
        if clock.leaps:
            where, ahead = clock.leaps[0]
            others = f", and {len(clock.leaps) - 1} times more" if len(clock.leaps) > 1 else ""
            self.note(f"its clock leaps ahead by {ahead:.1f} s at {clock_time(where)}{others}: not followed")

    def note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _missing(part: SourcePart | None) -> list[str]:
    """It may be known only now that the next one was asked for."""
    return [problem for problem in (part.missing, part.damage) if problem] if part else []


def _kind(container: InputContainer) -> str:
    return container.format.name.split(",")[0]


def _may_lack(container: InputContainer) -> float:
    kind = _kind(container)
    return SHORTER_BY_SAMPLES if kind in LOSSLESS else SHORTER_BY if kind == "mov" else SHORTER_ELSEWHERE


def clock_time(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{seconds:04.1f}"
