"""Decodes the frames of a source, recording after recording, each with the length of the gap before it."""

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

MAX_RECORDINGS = 10_000
"""Recordings that are read from one source."""
MP4_TOLERANCE = 0.25
"""Seconds that may be missing from the announced duration of an MP4; encoders pad, edit lists trim."""
DEFAULT_TOLERANCE = 0.1
"""The same for other containers."""
LOSSLESS_TOLERANCE = 0.01
"""The same for lossless formats, which count samples."""
LOSSLESS = ("ape", "flac", "sox", "tak", "tta", "wv")


class FrameReader:
    """Decodes a source once, by `frames`. Damage is collected in `problems`; it is an error only if nothing can be
    decoded."""

    def __init__(
        self, file: SourceFile, *, track: int | None = None, max_seconds: float | None = None, arriving: bool = False
    ) -> None:
        """`track`: number from 1; None chooses one. `arriving`: minimises the delay of the first samples."""
        self.problems: list[str] = []
        """One line each; complete after the last frame."""
        self.duration_hint: float | None = None
        """Duration that the container declares, in seconds; may be None, an estimate, or wrong."""
        self._file = file
        self._track = track
        self._max_seconds = max_seconds
        self._arriving = arriving
        self._clock = TimestampClock()
        self._damaged: list[float] = []
        self._has_begun = False

    @property
    def position(self) -> float:
        """End of the last frame, in seconds."""
        return self._clock.position

    def frames(self) -> Generator[tuple[float, AudioFrame], None, None]:
        """Seconds of the gap before each frame, and the frame. Raises UnsupportedAudio, AudioNotFound or NoSuchTrack
        if there are no frames."""
        failed: ConureError | None = None
        before: SourcePart | None = None
        missing: list[str] = []
        for number, part in enumerate(parts_of(self._file)):
            missing += _missing(before)
            if number == MAX_RECORDINGS:
                missing.append(f"contains more than {MAX_RECORDINGS} recordings: the others are left out")
                before = None
                break
            try:
                yield from self._part(part)
            except (UnsupportedAudio, AudioNotFound, NoSuchTrack) as error:
                if self._arriving and not self._has_begun:
                    raise
                failed = failed or error
                if self._has_begun:
                    self.note(
                        f"what comes after {clock_time(self.position)} cannot be read: {self._without_name(error)}"
                    )
            before = part
        missing += _missing(before)
        if not self._has_begun:
            raise self._error_without_frames(failed, missing)
        self._note_losses()
        for problem in missing:
            self.note(problem)

    def _error_without_frames(self, failed: ConureError | None, missing: list[str]) -> ConureError:
        if failed is None:
            failed = UnsupportedAudio(f"{self._file.name}: contains no samples that can be decoded", CONVERT)
        return type(failed)(f"{failed.message} ({missing[0]})", failed.hint) if missing else failed

    def _without_name(self, error: ConureError) -> str:
        return error.message.removeprefix(f"{self._file.name}: ")

    def _part(self, part: SourcePart) -> Iterator[tuple[float, AudioFrame]]:
        with ExitStack() as stack:
            container, tracks, packets = self._opened(part, stack, self._track)
            chosen, held = tracks[0], list[AudioFrame]()
            self._note_undecodable(container)
            if len(tracks) > 1:
                survey = TrackSurvey(self._file.name, tracks, part.file.seekable(), self._max_seconds)
                known_problems = len(self.problems)
                chosen = survey.choose(packets)
                held, damage = survey.decoded_frames(chosen)
                if not survey.holds_all:
                    del self.problems[known_problems:]  # they will be found again
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
            self.note(f"audio tracks without a decoder are left out: {', '.join(unread)}")

    def _opened(
        self, part: SourcePart, stack: ExitStack, track: int | None
    ) -> tuple[InputContainer, list[Track], Packets]:
        container = stack.enter_context(open_container(self._file, part, self._arriving))
        tracks = tracks_of(self._file.name, container, track)
        streams = [usable.stream for usable in tracks]
        for stream in streams:
            stream.codec_context.options = FRAME_LIMIT | DECODING.get(container.format.name, {})
        return container, tracks, self._packets(part, container, streams)

    def _packets(self, part: SourcePart, container: InputContainer, streams: list[AudioStream]) -> Packets:
        """Packets of the streams; after an error None per stream, which flushes its decoder."""
        error: OSError | av.FFmpegError | None = None
        extent = Extent() if has_extent(part, container.format.name) else None
        try:
            for packet in container.demux() if extent else container.demux(streams):
                if extent:
                    extent.add(packet)
                if not extent or packet.stream in streams:
                    yield cast(AudioStream, packet.stream), cast("Packet[AudioStream]", packet)
        except IndexError:
            pass  # PyAV fails at the end of the file if a stream was added late
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
        """Frames of one stream, the already decoded ones first, each with the gap before it."""
        begun, skipped = self.position, self._clock.skipped
        seconds, is_exact = announced_seconds(container, stream)
        if self.duration_hint is None:
            self.duration_hint = seconds if part.seconds is None else part.seconds
        self._clock.begin(container.start_time, timestamp_use(container))
        for frame in chain(held, self._decode(stream, packets)):
            check_shape(self._file.name, frame)
            self._has_begun = True
            yield self._clock.gap_before(frame), frame
        decoded = self.position - begun
        left_out = self._clock.skipped - skipped
        if _kind(container) not in LOSSLESS:
            left_out += max(0, container.start_time or 0) / av.time_base
        if seconds and is_exact and not part.missing and seconds - decoded - left_out > _tolerance(container):
            part.missing = f"cut off: {clock_time(seconds)} announced, {clock_time(decoded)} there"

    def _decode(self, stream: AudioStream, packets: Packets) -> Iterator[AudioFrame]:
        for packet_stream, packet in packets:
            if packet_stream is stream:
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
            more = f", and {len(clock.leaps) - 1} times more" if len(clock.leaps) > 1 else ""
            self.note(f"its clock leaps ahead by {ahead:.1f} s at {clock_time(where)}{more}: not followed")

    def note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _missing(part: SourcePart | None) -> list[str]:
    """Problems of a part that was read to its end; some are found only when the next part is requested."""
    return [problem for problem in (part.missing, part.damage) if problem] if part else []


def _kind(container: InputContainer) -> str:
    return container.format.name.split(",")[0]


def _tolerance(container: InputContainer) -> float:
    kind = _kind(container)
    return LOSSLESS_TOLERANCE if kind in LOSSLESS else MP4_TOLERANCE if kind == "mov" else DEFAULT_TOLERANCE


def clock_time(seconds: float) -> str:
    """h:mm:ss.s"""
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{seconds:04.1f}"
