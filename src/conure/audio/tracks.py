"""Which of several audio tracks is read: the one that was asked for, else the default among those with sound.

Tracks are decoded side by side until the one that is preferred has sound, most often with its first frames. What was
decoded meanwhile is kept, up to a bound; from there on a file is looked through, and opened anew at the end, while of a
pipe the best track so far is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition

from conure.audio.av_frames import check_shape, to_float
from conure.audio.source import CONVERT
from conure.errors import NoSuchTrack, UnsupportedAudio

__all__ = ["Packets", "TrackSurvey", "Track", "decode", "tracks_of"]

SOUND, HUM = 1e-3, 1e-5
"""Root mean square of a frame, from which on a track has sound, or not quite nothing; full scale is 1."""
MOST_HELD = 10.0
"""Seconds of each track that are kept, and"""
MOST_SAMPLES = 1 << 24
"""samples of all of them."""
LONGEST_TITLE, MOST_TOLD = 40, 8
"""Letters of a track's title, and tracks, that are told."""
SOUNDS = 3
"""Level of a track with sound."""
NOT_THE_MAIN_ONE = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.dub
    | Disposition.karaoke
    | Disposition.clean_effects
    | Disposition.dependent
)


Packets: TypeAlias = "Iterator[tuple[AudioStream, Packet[AudioStream] | None]]"


@dataclass(eq=False)
class Track:
    number: int
    """From 1."""
    stream: AudioStream
    seconds: float = 0.0
    """Decoded so far."""
    loudest: float = 0.0
    """Root mean square of its loudest frame so far."""
    held: list[AudioFrame] = field(default_factory=list)
    """What was decoded and is not to be decoded again."""
    damaged: int = 0
    """Packets."""

    @property
    def preference(self) -> tuple[bool, bool, bool, int]:
        """Less is better."""
        said = self.stream.disposition
        return not self.stream.rate, not said & Disposition.default, bool(said & NOT_THE_MAIN_ONE), self.number

    @property
    def level(self) -> int:
        """0 nothing, 1 silence, 2 next to it, 3 sound."""
        return 0 if not self.seconds else 1 + (self.loudest > HUM) + (self.loudest > SOUND)

    def measure(self, frame: AudioFrame) -> None:
        self.seconds += frame.samples / frame.sample_rate
        try:
            samples = to_float([frame])
        except av.FFmpegError:  # channels in an order not known: told where it is read
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self.loudest = max(self.loudest, float(np.sqrt(np.square(samples).mean(axis=1).max())))

    def __str__(self) -> str:
        language = self.stream.language
        told = [self.stream.codec_context.name] if self.stream.codec_context else ["no decoder"]
        told += [language] if language and language != "und" else []
        told += [title[:LONGEST_TITLE]] if (title := self.stream.metadata.get("title")) else []
        return f"{self.number} ({', '.join(told)})"


def tracks_of(name: str, container: InputContainer, asked: int | None) -> list[Track]:
    """Those that may be read, the best first; or the one that was asked for. Raises UnsupportedAudio."""
    all_of_them = [Track(number, stream) for number, stream in enumerate(container.streams.audio, 1)]
    if not all_of_them:
        raise UnsupportedAudio(f"{name}: has no audio stream", "a recording without sound, or one that was cut off?")
    tracks = [track for track in all_of_them if asked in (None, track.number)]
    if not tracks:
        there = _listed([str(track) for track in all_of_them])
        raise NoSuchTrack(f"{name}: has no audio track {asked}", f"choose one of its tracks: {there}")
    usable = [track for track in tracks if track.stream.codec_context]
    if not usable:
        raise UnsupportedAudio(f"{name}: has audio of a kind that no decoder is there for", CONVERT)
    return sorted(usable, key=lambda track: track.preference)


def decode(stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame] | None:
    """Frames that hold samples; None of a packet that is damaged."""
    try:
        return [frame for frame in stream.decode(packet) if frame.samples]
    except av.FFmpegError:
        return None if packet is None or packet.size else []  # some writers end with a packet that holds nothing


class TrackSurvey:
    """Chooses among tracks while they are decoded."""

    def __init__(self, name: str, tracks: Sequence[Track], may_look_on: bool, most_seconds: float | None) -> None:
        """`tracks`: the best first; `may_look_on`: whether the recording can be opened anew."""
        self.holds_all = True
        """Whether all that was decoded is held."""
        self._name = name
        self._tracks = tracks
        self._may_look_on = may_look_on
        self._most_seconds = most_seconds
        self._is_full = False
        self._samples = 0

    def choose(self, packets: Packets) -> Track:
        """Takes as many packets as it needs."""
        of_stream = {track.stream.index: track for track in self._tracks}
        for stream, packet in packets:
            track, best = of_stream[stream.index], self._best()
            if not self._is_full or best.level < SOUNDS or track.preference < best.preference:
                self._hear(track, packet)
            if self._is_decided():
                break
        return self._best()

    def decoded_frames(self, track: Track) -> tuple[list[AudioFrame], int]:
        """What is not to be decoded again, and how many packets were damaged."""
        return (track.held, track.damaged) if self.holds_all else ([], 0)

    def describe_choice(self) -> str:
        """What is left out."""
        chosen = self._best()
        others = sorted((track for track in self._tracks if track is not chosen), key=lambda track: track.number)
        left = _listed([f"{track}{_why(track) if track.preference < chosen.preference else ''}" for track in others])
        return f"holds {len(self._tracks)} audio tracks: {chosen} is read, and left out: {left}"

    def _hear(self, track: Track, packet: Packet[AudioStream] | None) -> None:
        frames = decode(track.stream, packet)
        if frames is None:
            track.damaged += 1
        for frame in frames or ():
            check_shape(self._name, frame)
            track.measure(frame)
            if self.holds_all:
                track.held.append(frame)
                self._samples += frame.samples * frame.layout.nb_channels
        self._is_full |= track.seconds > MOST_HELD or self._samples > MOST_SAMPLES
        if self._is_full and self._may_look_on and not self._is_decided():
            self.holds_all = False
            for each in self._tracks:
                each.held.clear()

    def _is_decided(self) -> bool:
        best = self._best()
        if best is self._tracks[0] and best.level == SOUNDS:
            return True
        return self._is_full and (not self._may_look_on or self._is_long())

    def _best(self) -> Track:
        return min(self._tracks, key=lambda track: (-track.level, track.preference))

    def _is_long(self) -> bool:
        return self._most_seconds is not None and max(track.seconds for track in self._tracks) > self._most_seconds


def _listed(tracks: list[str]) -> str:
    more = len(tracks) - MOST_TOLD
    return "; ".join([*tracks[:MOST_TOLD], f"and {more} more"] if more > 0 else tracks)


def _why(track: Track) -> str:
    return (", which is empty", ", which is silent", ", which is nearly silent", "")[track.level]
