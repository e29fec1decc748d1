"""Reads, decodes and cuts recordings for somebody else, who does nothing but transcribe. Knows no torch.

It runs in a process or a thread of its own, and talks over a socket: requests to read a recording come in, its pieces
go out, their samples through memory that both sides see. Where that memory is full it waits until pieces are freed, so
a recording of any length takes the same.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO, Literal

import numpy as np
from msgspec import Struct, json, msgpack
from numpy.typing import NDArray

from conure.audio.files import open_audio
from conure.engine.ipc.frames import frame, receive_frame
from conure.errors import ConureError
from conure.printable import printable_name
from conure.service.region_allocator import RegionAllocator
from conure.service.segmenter import split_blocks
from conure.vad.segmentation import ClipSpan, SegmentationSettings

__all__ = [
    "WorkerMessage",
    "DecodedClip",
    "RecordingEnded",
    "RecordingFailed",
    "FreeRegions",
    "RecordingOpened",
    "ReadRecording",
    "WorkerReady",
    "WorkerRequest",
    "Setup",
    "WorkerBlocked",
    "main",
    "run_worker",
]

MOST_PIECES = 512
"""On their way at a time: what is said of them has room in a socket even where nobody reads there."""

Samples = NDArray[np.float32]


class ReadRecording(Struct, frozen=True, tag=True):
    number: int
    path: bytes | None
    """As the file system has it, which need not be UTF-8. None where both sides are one process, which has the source
    under that number."""
    split: bool
    max_seconds: float | None
    track: int | None = None
    """Of several audio tracks, from 1."""


class FreeRegions(Struct, frozen=True, tag=True):
    """Pieces at those places are not needed any more."""

    offsets: list[int]


class WorkerReady(Struct, frozen=True, tag=True):
    """It takes requests."""


class WorkerBlocked(Struct, frozen=True, tag=True):
    """It goes on when pieces are freed."""


class RecordingOpened(Struct, frozen=True, tag=True):
    number: int
    channels: int
    announced_seconds: float | None
    """Seconds, as the container tells them."""


class DecodedClip(Struct, frozen=True, tag=True):
    """A piece: `count` samples at a place of the memory. Times are in seconds of the recording."""

    number: int
    channel: int
    offset: int
    count: int
    start: float
    overlap: float


class RecordingEnded(Struct, frozen=True, tag=True):
    """All pieces of the recording have come."""

    number: int
    name: str
    seconds: float
    problems: list[str]


class RecordingFailed(Struct, frozen=True, tag=True):
    """Nothing more comes of the recording."""

    number: int
    kind: str
    """Name of the class, in `errors` if it is one of ours."""
    message: str
    hint: str | None = None
    trace: str | None = None
    """Where it happened, if nobody knows the mistake."""


WorkerRequest = ReadRecording | FreeRegions
WorkerMessage = WorkerReady | WorkerBlocked | RecordingOpened | DecodedClip | RecordingEnded | RecordingFailed


class Setup(Struct, frozen=True):
    """What a process is started with."""

    socket_fd: int
    """Descriptor of the socket."""
    memory_fd: int
    """Descriptor of the memory."""
    segmentation: SegmentationSettings


def main() -> None:
    """Of a process."""
    setup = json.decode(sys.argv[1], type=Setup)
    memory = np.frombuffer(mmap.mmap(setup.memory_fd, 0), np.float32)
    run_worker(socket.socket(fileno=setup.socket_fd), memory, setup.segmentation, {})


def run_worker(
    end: socket.socket, memory: Samples, cut: SegmentationSettings, files: Mapping[int, BinaryIO | bytes]
) -> None:
    """Runs until the other end of the socket is closed, and closes this one."""
    with end:
        try:
            _Reading(end, memory, cut, files).run()
        except _NobodyWaits:
            return


class _NobodyWaits(Exception):
    """The other side is gone."""


class _Reading:
    def __init__(
        self, end: socket.socket, memory: Samples, cut: SegmentationSettings, files: Mapping[int, BinaryIO | bytes]
    ) -> None:
        self._end = end
        self._memory = memory
        self._cut = cut
        self._files = files
        self._room = RegionAllocator(len(memory), MOST_PIECES)
        self._asked: deque[ReadRecording] = deque()
        self._unsent: list[WorkerMessage] = [WorkerReady()]
        self._decoder = msgpack.Decoder(WorkerRequest)
        self._encoder = msgpack.Encoder()

    def run(self) -> None:
        self._send()
        while True:
            while not self._asked:
                self._receive()
            self._read(self._asked.popleft())

    def _read(self, asked: ReadRecording) -> None:
        """What one recording has to say is sent together where it is short."""
        number = asked.number
        source = self._files[number] if asked.path is None else os.fsdecode(asked.path)
        try:
            channels: Literal["mix", "split"] = "split" if asked.split else "mix"
            with open_audio(source, channels=channels, track=asked.track, max_seconds=asked.max_seconds) as reader:
                self._unsent.append(RecordingOpened(number, reader.channels, reader.duration_hint))
                for _, pieces in split_blocks(reader.blocks(), self._cut):
                    if any(isinstance(told, DecodedClip) for told in self._unsent):
                        self._send()
                    for channel, piece in pieces:
                        self._unsent.append(self._placed(number, channel, piece))
                self._unsent.append(RecordingEnded(number, reader.name, reader.seconds_read, reader.problems))
        except _NobodyWaits:
            raise
        except ConureError as error:
            self._unsent.append(RecordingFailed(number, type(error).__name__, error.message, error.hint))
        except Exception as error:
            self._unsent.append(
                RecordingFailed(
                    number,
                    type(error).__name__,
                    printable_name(str(error)),
                    trace=printable_name(traceback.format_exc()),
                )
            )
        self._send()

    def _placed(self, number: int, channel: int, piece: ClipSpan) -> DecodedClip:
        """Waits for room if need be."""
        count = len(piece.samples)
        while (at := self._room.allocate(count)) is None:
            self._unsent.append(WorkerBlocked())
            self._send()
            self._receive()
        self._memory[at : at + count] = piece.samples
        return DecodedClip(number, channel, at, count, piece.start, piece.overlap)

    def _send(self) -> None:
        if self._unsent:
            try:
                self._end.sendall(frame(self._encoder.encode(self._unsent)))
            except OSError:
                raise _NobodyWaits from None
            self._unsent.clear()

    def _receive(self) -> None:
        """Waits for one request."""
        payload = receive_frame(self._end)
        if payload is None:
            raise _NobodyWaits
        request = self._decoder.decode(payload)
        if isinstance(request, ReadRecording):
            self._asked.append(request)
        else:
            for place in request.places:
                self._room.free(place)
