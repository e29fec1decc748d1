"""What FFmpeg may open, how it is opened, and in which words it is refused.

Playlists and other formats that point elsewhere are refused: nothing but the source itself is ever opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from conure.audio.parts import SourcePart
from conure.audio.source import CONVERT, INDEX_LAST, RETRY, SourceFile
from conure.errors import AudioNotFound, UnsupportedAudio

__all__ = ["DECODING", "FRAME_LIMIT", "announced_seconds", "index_first", "is_container", "open_container"]

CONTAINERS = (
    "aac,aax,ac3,ac4,act,aea,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,avr,caf,dsf,dss,dts,dtshd,dv,eac3,flac,"
    "flv,g722,g723_1,g729,gsm,gxf,iamf,iff,ilbc,ircam,kux,lc3,live_flv,loas,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,mpegvideo,mxf,nistsphere,nsv,nut,ogg,oma,osq,paf,pvf,qcp,qoa,rka,rm,rso,sbc,sds,shn,sln,sol,sox,swf,"
    "tak,truehd,tta,voc,vqf,w64,wav,wavarc,webm,wsd,wtv,wv,wve,xwma"
)
"""FFmpeg's demuxers that read nothing but the bytes they are given. HLS, DASH, concat and SDP would open other
files or the network; images and subtitles are no recordings; headerless PCM leaves its rate open."""

LENGTH_IN_HEADER = (
    *(
        "aiff",
        "ape",
        "asf",
        "caf",
        "dsf",
        "flac",
        "flv",
        "lc3",
        "matroska",
        "mov",
        "mpc",
        "mpc8",
        "mxf",
        "nistsphere",
        "osq",
    ),
    *("qoa", "rm", "sox", "tak", "tta", "wtv", "wv"),
)
"""Containers whose header holds the length. That of others is an estimate from the bit rate."""

FRAME_LIMIT = {"max_samples": str(1 << 21)}
"""Samples per channel of one decoded frame; Monkey's Audio at its slowest setting makes 1.2 million."""

DECODING = {"caf": {"flags2": "+skip_manual"}}
"""Of CAF, FFmpeg would trim the last packet though it is short already."""

ONE_PACKET = {"analyzeduration": "1"}
"""For audio that is still arriving: the head tells nearly all, one packet the rest. ("nobuffer" would lose the
packets that were looked at.)"""
NO_PACKET = {"probesize": "32"}
"""Some demuxers cannot find their way after damage with this; that of WAV needs no way, and would wait long."""
SHORT_GUESS = {"formatprobesize": str(1 << 16)}
"""Bytes that may be looked at where the head tells nothing."""
TOLD_BY_HEAD = (
    (re.compile(b"OggS"), "ogg", ONE_PACKET),
    (re.compile(b"\x1a\x45\xdf\xa3"), "matroska", ONE_PACKET),
    (re.compile(b"RIFF....WAVE", re.DOTALL), "wav", NO_PACKET),
    (re.compile(b"fLaC"), "flac", ONE_PACKET),
    (re.compile(b"....ftyp", re.DOTALL), "mov", ONE_PACKET),
    (re.compile(b"\xff[\xf0\xf1\xf8\xf9]"), "aac", ONE_PACKET),
    (re.compile(b"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]|ID3"), None, ONE_PACKET),
)
"""FFmpeg waits for 2048 bytes before it guesses a format, which is a second of speech in Opus. Formats that tell
their streams nowhere but in their packets, such as MPEG-TS, are not here. For MP3 it has to guess: without the
bytes that it keeps for that, its demuxer may skip the first frame in a pipe."""

UNMISTAKABLE = ("ogg", "matroska", "wav", "flac", "mov")
"""Of these, those whose heads samples would have by no chance."""


@contextmanager
def index_first(file: SourceFile) -> Iterator[None]:
    """Inside it is read what is still coming; where no samples can be had because the index comes last, it is said."""
    try:
        yield
    except UnsupportedAudio as error:
        if file.head[4:8] not in INDEX_LAST:
            raise
        reason = "has its index at its end, or is damaged: it cannot be read as it arrives"
        hint = "send fragmented MP4 (ffmpeg -movflags empty_moov), WebM or Ogg, or the file as a whole"
        raise UnsupportedAudio(f"{file.name}: {reason}", hint) from error


def open_container(source: SourceFile, part: SourcePart, arriving: bool = False) -> InputContainer:
    """Of a part of the source. `arriving`: samples are wanted as soon as may be."""
    kind, options = None, {}
    if arriving:
        unknown = (None, None, SHORT_GUESS)
        _, kind, options = next((told for told in TOLD_BY_HEAD if told[0].match(part.head)), unknown)
    options = {"format_whitelist": CONTAINERS, **options}
    try:
        return av.open(
            part.file, "r", format=kind, options=FRAME_LIMIT, container_options=options, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        if source.error:
            raise AudioNotFound(f"{source.name}: cannot be read: {source.error.strerror}", RETRY) from error
        refused = isinstance(error, av.ArgumentError)
        reason = "is of a format that is not read" if refused else "is not audio, or damaged from its start"
        raise UnsupportedAudio(f"{source.name}: {reason}", CONVERT) from error


def is_container(head: bytes) -> bool:
    """Whether bytes that are said to be samples begin as one of the usual containers; `head`: the first 16."""
    return any(kind in UNMISTAKABLE and pattern.match(head) for pattern, kind, _ in TOLD_BY_HEAD)


def announced_seconds(container: InputContainer, stream: AudioStream) -> tuple[float | None, bool]:
    """Seconds of audio as the container tells them, and whether that is more than an estimate."""
    kind = container.format.name.split(",")[0]
    exact = kind in LENGTH_IN_HEADER
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
        exact &= len(container.streams) == 1  # else it is the length of the longest stream
    return (seconds, exact) if seconds and seconds > 0 else (None, False)
