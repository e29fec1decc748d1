"""Selects one of several audio tracks: the requested one, otherwise the default among those with sound.

Tracks are decoded in parallel until the preferred one has sound, usually in its first frames. Decoded frames are kept
up to a limit. Beyond it, files are scanned further and then reopened, while for pipes the best track so far is chosen.
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
"""Root mean square of a frame from which a track has sound, or is nearly silent; full scale is 1."""
MAX_HELD_SECONDS = 10.0
"""Limit of decoded frames that are kept, per track."""
MAX_HELD_SAMPLES = 1 << 24
"""The same for all tracks together."""
MAX_TITLE_LENGTH, MAX_LISTED_TRACKS = 40, 8
"""Limits in descriptions of tracks."""
SOUND_LEVEL = 3
"""`Track.level` of a track with sound."""
SECONDARY = (
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
    """Frames that are already decoded."""
    damaged: int = 0
    """Number of damaged packets."""

    @property
    def preference(self) -> tuple[bool, bool, bool, int]:
        """Sort key: a smaller one is preferred."""
        disposition = self.stream.disposition
        return not self.stream.rate, not disposition & Disposition.default, bool(disposition & SECONDARY), self.number

    @property
    def level(self) -> int:
        """0 no samples, 1 silent, 2 nearly silent, 3 sound."""
        return 0 if not self.seconds else 1 + (self.loudest > HUM) + (self.loudest > SOUND)

    def measure(self, frame: AudioFrame) -> None:
        self.seconds += frame.samples / frame.sample_rate
        try:
            samples = to_float([frame])
        except av.FFmpegError:  # unsupported channel layout: reported when the track is read
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self.loudest = max(self.loudest, float(np.sqrt(np.square(samples).mean(axis=1).max())))

    def __str__(self) -> str:
        language = self.stream.language
        details = [self.stream.codec_context.name] if self.stream.codec_context else ["no decoder"]
        details += [language] if language and language != "und" else []
        details += [title[:MAX_TITLE_LENGTH]] if (title := self.stream.metadata.get("title")) else []
        return f"{self.number} ({', '.join(details)})"


def tracks_of(name: str, container: InputContainer, requested: int | None) -> list[Track]:
    """The usable tracks, the preferred one first; or the requested one. Raises UnsupportedAudio and NoSuchTrack."""
    all_tracks = [Track(number, stream) for number, stream in enumerate(container.streams.audio, 1)]
    if not all_tracks:
        raise UnsupportedAudio(f"{name}: has no audio stream", "a recording without sound, or one that was cut off?")
    tracks = [track for track in all_tracks if requested in (None, track.number)]
    if not tracks:
        available = _listed([str(track) for track in all_tracks])
        raise NoSuchTrack(f"{name}: has no audio track {requested}", f"choose one of its tracks: {available}")
    usable = [track for track in tracks if track.stream.codec_context]
    if not usable:
        raise UnsupportedAudio(f"{name}: has no audio that can be decoded: unsupported codec", CONVERT)
    return sorted(usable, key=lambda track: track.preference)


def decode(stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame] | None:
    """The frames with samples in a packet; None if it is damaged."""
    try:
        return [frame for frame in stream.decode(packet) if frame.samples]
    except av.FFmpegError:
        return None if packet is None or packet.size else []  # some writers end with an empty packet


class TrackSurvey:
    """Chooses one of several tracks while they are decoded."""

    def __init__(self, name: str, tracks: Sequence[Track], can_reopen: bool, max_seconds: float | None) -> None:
        """`tracks`: the preferred one first; `can_reopen`: whether the recording can be opened again."""
        self.holds_all = True
        """Whether all decoded frames are kept."""
        self._name = name
        self._tracks = tracks
        self._can_reopen = can_reopen
        self._max_seconds = max_seconds
        self._is_full = False
        self._samples = 0

    def choose(self, packets: Packets) -> Track:
        """Decodes packets until a track is chosen."""
        track_by_stream = {track.stream.index: track for track in self._tracks}
        for stream, packet in packets:
            track, best = track_by_stream[stream.index], self._best()
            if not self._is_full or best.level < SOUND_LEVEL or track.preference < best.preference:
                self._decode_packet(track, packet)
            if self._is_decided():
                break
        return self._best()

    def decoded_frames(self, track: Track) -> tuple[list[AudioFrame], int]:
        """The decoded frames of a track, and the number of damaged packets."""
        return (track.held, track.damaged) if self.holds_all else ([], 0)

    def describe_choice(self) -> str:
        """One line about the chosen track and the others."""
        chosen = self._best()
        others = sorted((track for track in self._tracks if track is not chosen), key=lambda track: track.number)
        rest = _listed([f"{track}{_reason(track) if track.preference < chosen.preference else ''}" for track in others])
        return f"holds {len(self._tracks)} audio tracks: {chosen} is read, and left out: {rest}"

    def _decode_packet(self, track: Track, packet: Packet[AudioStream] | None) -> None:
        frames = decode(track.stream, packet)
        if frames is None:
            track.damaged += 1
        for frame in frames or ():
            check_shape(self._name, frame)
            track.measure(frame)
            if self.holds_all:
                track.held.append(frame)
                self._samples += frame.samples * frame.layout.nb_channels
        self._is_full |= track.seconds > MAX_HELD_SECONDS or self._samples > MAX_HELD_SAMPLES
        if self._is_full and self._can_reopen and not self._is_decided():
            self.holds_all = False
            for undecided in self._tracks:
                undecided.held.clear()

    def _is_decided(self) -> bool:
        best = self._best()
        if best is self._tracks[0] and best.level == SOUND_LEVEL:
            return True
        return self._is_full and (not self._can_reopen or self._is_long())

    def _best(self) -> Track:
        return min(self._tracks, key=lambda track: (-track.level, track.preference))

    def _is_long(self) -> bool:
        return self._max_seconds is not None and max(track.seconds for track in self._tracks) > self._max_seconds


def _listed(tracks: list[str]) -> str:
    more = len(tracks) - MAX_LISTED_TRACKS
    return "; ".join([*tracks[:MAX_LISTED_TRACKS], f"and {more} more"] if more > 0 else tracks)


def _reason(track: Track) -> str:
    return (", which is empty", ", which is silent", ", which is nearly silent", "")[track.level]
