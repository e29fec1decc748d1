"""From a source to an open container and its audio stream: what is opened, what is refused, in which words.

Nothing but the source itself is opened. FFmpeg gets a file object, never a name, so a path can be no address
and no protocol of FFmpeg's; playlists and other formats that point elsewhere are refused.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from conure.errors import AudioNotFound, UnsupportedAudio

__all__ = [
    "CONVERT",
    "Source",
    "SourceFile",
    "announced_seconds",
    "choose_stream",
    "index_first",
    "is_container",
    "missing_end",
    "open_container",
    "open_pipe",
    "open_source",
]

Source = Path | str | BinaryIO | bytes
"""A string is a path, never an address on the network."""

CONTAINERS = (
    "aac,aax,ac3,ac4,act,aea,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,avr,caf,dsf,dss,dts,dtshd,dv,eac3,flac,"
    "flv,g722,g723_1,g729,gsm,gxf,iamf,iff,ilbc,ircam,kux,lc3,live_flv,loas,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,mpegvideo,mxf,nistsphere,nsv,nut,ogg,oma,osq,paf,pvf,qcp,qoa,rka,rm,rso,sbc,sds,shn,sln,sol,sox,swf,"
    "tak,truehd,tta,voc,vqf,w64,wav,wavarc,webm,wsd,wtv,wv,wve,xwma"
)
"""FFmpeg's demuxers that read nothing but the bytes they are given. HLS, DASH, concat and SDP would open other
files or the network; images and subtitles are no recordings; headerless PCM leaves its rate open."""

LENGTH_IN_HEADER = ("au", "caf", "flac", "matroska", "mov", "nistsphere", "w64")
"""Containers whose header holds the length. That of others is an estimate from the bit rate."""

FRAME_LIMIT = {"max_samples": str(1 << 21)}
"""Samples per channel of one decoded frame; Monkey's Audio at its slowest setting makes 1.2 million."""

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

HEAD = 16
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]")
INDEX_LAST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Bytes 4 to 8 of MP4 and QuickTime, whose index may come after the samples."""
STREAMED_SIZE, RIFF_SLACK = 0x7FFF0000, 64
"""A RIFF size from here on stands for "unknown" in files that were written to a pipe; many a writer
counts its head once too often."""
LONGEST_PAGE, PAGE_HEAD, LAST_PAGE = 65_307, 27, 4
"""Bytes of a page of Ogg and of its head; the flag in its sixth byte that says it is the last."""

CONVERT = "check that it plays, or convert it: ffmpeg -i INPUT -ar 16000 OUTPUT.wav"
RETRY = "check the disk or the connection, and try again"


class SourceFile:
    """What FFmpeg reads. An error of the disk or the pipe is the end of the file, and is remembered."""

    def __init__(self, name: str, file: BinaryIO, head: bytes) -> None:
        """`head`: the first bytes; a file that cannot seek is already behind them."""
        self.name = name
        self.head = head
        self.error: OSError | None = None
        self._file = file
        self._again = b"" if file.seekable() else head

    def read(self, size: int) -> bytes:
        if self._again:
            part, self._again = self._again[:size], self._again[size:]
            return part
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            return b""

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # a place that a broken index names
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def tail(self, size: int) -> tuple[bytes, int]:
        """The last bytes and the length of the file."""
        length = self.seek(0, os.SEEK_END)
        self.seek(max(0, length - size))
        last = self.read(size)
        self.seek(0)
        return last, length


def open_source(source: Source, stack: ExitStack) -> SourceFile:
    """The source at its first byte. What is opened here is closed by the stack."""
    if isinstance(source, bytes):
        name, file = "the audio", cast(BinaryIO, io.BytesIO(source))
    elif isinstance(source, str | Path):
        name, file = str(source), stack.enter_context(_open_path(str(source)))
    else:
        given = getattr(source, "name", None)  # a number, if made from a file descriptor
        name, file = given if isinstance(given, str) else "the audio", source
    try:
        opened = _at_start(name, file, stack)
    except OSError as error:
        raise AudioNotFound(f"{name}: cannot be read: {error.strerror or error}", RETRY) from error
    return _checked(opened)


def _checked(file: SourceFile) -> SourceFile:
    if not file.head:
        raise UnsupportedAudio(f"{file.name}: is empty", "record or copy it again")
    if file.head.startswith(PLAYLISTS):
        raise UnsupportedAudio(f"{file.name}: is a playlist, not audio", "give the audio files that it lists")
    return file


def open_pipe(pipe: BinaryIO) -> SourceFile:
    """Audio that is still coming, at its first byte; `pipe` cannot seek, and its `read` may wait."""
    return _checked(SourceFile("the audio", pipe, _read_head(pipe)))


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


def _open_path(name: str) -> BinaryIO:
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _not_found(name, error) from error
    if stat.S_ISDIR(mode):
        raise AudioNotFound(f"{name}: is a folder, not a file", "name the files in it")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise AudioNotFound(f"{name}: is a device, not a file", "record to a file, or pipe the audio in")
    try:
        return open(name, "rb")
    except OSError as error:
        raise _not_found(name, error) from error


def _not_found(name: str, error: OSError | ValueError) -> AudioNotFound:
    hint = "check the path"
    if isinstance(error, PermissionError):
        hint = "make it readable for this user (chmod u+r)"
    elif re.match(r"\w+://", name):
        hint = "only files are read: download it first"
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return AudioNotFound(f"{name}: {reason}", hint)


def _at_start(name: str, file: BinaryIO, stack: ExitStack) -> SourceFile:
    """What comes through a pipe and may have its index last goes to a temporary file first."""
    if not file.seekable():
        head = _read_head(file)
        if head[4:8] not in INDEX_LAST:
            return SourceFile(name, file, head)
        file = _spool(head, file, stack)
    file.seek(0)
    head = _read_head(file)
    file.seek(0)
    return SourceFile(name, file, head)


def _read_head(file: BinaryIO) -> bytes:
    head = b""
    while len(head) < HEAD and (part := file.read(HEAD - len(head))):
        head += part
    return head


def _spool(head: bytes, file: BinaryIO, stack: ExitStack) -> BinaryIO:
    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    spool.write(head)
    shutil.copyfileobj(file, spool)
    return spool


def open_container(file: SourceFile, arriving: bool = False) -> InputContainer:
    """`arriving`: samples are wanted as soon as may be."""
    kind, options = None, {}
    if arriving:
        unknown = (None, None, SHORT_GUESS)
        _, kind, options = next((told for told in TOLD_BY_HEAD if told[0].match(file.head)), unknown)
    options = {"format_whitelist": CONTAINERS, **options}
    try:
        return av.open(
            file, "r", format=kind, options=FRAME_LIMIT, container_options=options, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        if file.error:
            raise AudioNotFound(f"{file.name}: cannot be read: {file.error.strerror}", RETRY) from error
        refused = isinstance(error, av.ArgumentError)
        reason = "is of a format that is not read" if refused else "is not audio, or damaged from its start"
        raise UnsupportedAudio(f"{file.name}: {reason}", CONVERT) from error


def choose_stream(name: str, container: InputContainer) -> AudioStream:
    """The first audio stream that can be decoded, if possible one that knows its rate."""
    streams = container.streams.audio
    if not streams:
        raise UnsupportedAudio(f"{name}: has no audio stream", "a recording without sound, or one that was cut off?")
    usable = [stream for stream in streams if stream.codec_context]
    if not usable:
        raise UnsupportedAudio(f"{name}: has audio of a kind that no decoder is there for", CONVERT)
    chosen = next((stream for stream in usable if stream.rate), usable[0])
    chosen.codec_context.options = FRAME_LIMIT
    return chosen


def is_container(head: bytes) -> bool:
    """Whether bytes that are said to be samples begin as one of the usual containers; `head`: the first 16."""
    return any(kind in UNMISTAKABLE and pattern.match(head) for pattern, kind, _ in TOLD_BY_HEAD)


def announced_seconds(container: InputContainer, stream: AudioStream) -> tuple[float | None, bool]:
    """Seconds of audio as the container tells them, and whether that is more than an estimate."""
    kind = container.format.name.split(",")[0]
    exact = kind in LENGTH_IN_HEADER or (kind == "mp3" and _lacks_frames(container, stream))
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
        exact &= len(container.streams) == 1  # else it is the length of the longest stream
    return (seconds, exact) if seconds and seconds > 0 else (None, False)


def _lacks_frames(container: InputContainer, stream: AudioStream) -> bool:
    """Whether an MP3 has fewer bytes than its length and bit rate make: then its first frame told the length."""
    return container.bit_rate < (stream.bit_rate or 0)


def missing_end(file: SourceFile) -> str | None:
    """What the end of a WAV, AVI or Ogg file lacks. FFmpeg takes it for the end of the recording, without a word."""
    if not file.seekable():
        return None
    last, length = file.tail(LONGEST_PAGE)
    if file.head.startswith(b"RIFF"):
        announced = int.from_bytes(file.head[4:8], "little") + 8
        if length + RIFF_SLACK < announced < STREAMED_SIZE:
            return f"cut off: {announced} bytes announced, {length} there"
    elif file.head.startswith(b"OggS"):
        page = last[last.rfind(b"OggS") :]
        if len(page) < PAGE_HEAD or not page[5] & LAST_PAGE or len(page) < _page_length(page):
            return "cut off, or not finished: its last page is missing"
    return None


def _page_length(page: bytes) -> int:
    """Head, table of segment lengths, segments."""
    segments = page[26]
    return PAGE_HEAD + segments + sum(page[PAGE_HEAD : PAGE_HEAD + segments])
