"""Opening of containers with FFmpeg: allowed formats, options, error messages.

Playlists and other formats that reference other files are refused: only the source itself is ever opened.
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
"""FFmpeg's demuxers that read only the bytes of the source. HLS, DASH, concat and SDP would open other files or the
network; images and subtitles are not recordings; headerless PCM does not declare its rate."""

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
"""Containers whose header contains the duration. For others it is estimated from the bit rate."""

FRAME_LIMIT = {"max_samples": str(1 << 21)}
"""Limit of samples per channel in a decoded frame; Monkey's Audio at its slowest setting has 1.2 million."""

DECODING = {"caf": {"flags2": "+skip_manual"}}
"""Decoder options. For CAF, FFmpeg would trim the last packet, which is already short."""

ONE_PACKET = {"analyzeduration": "1"}
"""For audio that is still arriving: header and one packet are enough to open it. ("nobuffer" would lose the probed
packets.)"""
NO_PACKET = {"probesize": "32"}
"""Only for WAV: other demuxers cannot resynchronise with it after damage; that of WAV would probe for long."""
SHORT_PROBE = {"formatprobesize": str(1 << 16)}
"""Bytes to probe if the header does not identify the format."""
FORMATS_BY_HEADER = (
    (re.compile(b"OggS"), "ogg", ONE_PACKET),
    (re.compile(b"\x1a\x45\xdf\xa3"), "matroska", ONE_PACKET),
    (re.compile(b"RIFF....WAVE", re.DOTALL), "wav", NO_PACKET),
    (re.compile(b"fLaC"), "flac", ONE_PACKET),
    (re.compile(b"....ftyp", re.DOTALL), "mov", ONE_PACKET),
    (re.compile(b"\xff[\xf0\xf1\xf8\xf9]"), "aac", ONE_PACKET),
    (re.compile(b"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]|ID3"), None, ONE_PACKET),
)
"""Formats that need no probing. FFmpeg waits for 2048 bytes before it guesses a format, which is a second of speech in
Opus. Formats that declare their streams only in packets, such as MPEG-TS, are not listed. MP3 has to be probed: without
the buffered bytes of the probe, its demuxer may skip the first frame in a pipe."""

UNAMBIGUOUS = ("ogg", "matroska", "wav", "flac", "mov")
"""Formats whose headers are unlikely to occur as samples."""


@contextmanager
def index_first(file: SourceFile) -> Iterator[None]:
    """Context for reading a pipe: UnsupportedAudio becomes an error about the index if that may come last."""
    try:
        yield
    except UnsupportedAudio as error:
        if file.head[4:8] not in INDEX_LAST:
            raise
        reason = "has its index at its end, or is damaged: it cannot be decoded while it arrives"
        hint = "send fragmented MP4 (ffmpeg -movflags empty_moov), WebM or Ogg, or upload the complete file"
        raise UnsupportedAudio(f"{file.name}: {reason}", hint) from error


def open_container(source: SourceFile, part: SourcePart, arriving: bool = False) -> InputContainer:
    """Opens a part of the source. `arriving`: minimises the delay of the first samples."""
    kind, options = None, {}
    if arriving:
        unknown = (None, None, SHORT_PROBE)
        _, kind, options = next((entry for entry in FORMATS_BY_HEADER if entry[0].match(part.head)), unknown)
    options = {"format_whitelist": CONTAINERS, **options}
    try:
        return av.open(
            part.file, "r", format=kind, options=FRAME_LIMIT, container_options=options, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        if source.error:
            raise AudioNotFound(f"{source.name}: cannot be read: {source.error.strerror}", RETRY) from error
        is_refused = isinstance(error, av.ArgumentError)
        reason = "has an unsupported format" if is_refused else "is not audio, or damaged from its start"
        raise UnsupportedAudio(f"{source.name}: {reason}", CONVERT) from error


def is_container(head: bytes) -> bool:
    """Whether bytes that are declared as raw samples begin like a container; `head`: the first 16 bytes."""
    return any(kind in UNAMBIGUOUS and pattern.match(head) for pattern, kind, _ in FORMATS_BY_HEADER)


def announced_seconds(container: InputContainer, stream: AudioStream) -> tuple[float | None, bool]:
    """Duration that the container declares, in seconds, and whether it is exact."""
    kind = container.format.name.split(",")[0]
    is_exact = kind in LENGTH_IN_HEADER
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
        is_exact &= len(container.streams) == 1  # otherwise it is the duration of the longest stream
    return (seconds, is_exact) if seconds and seconds > 0 else (None, False)
