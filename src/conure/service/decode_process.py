"""A decode worker: decodes recordings and splits them into clips for another process. Imports no torch.

It runs in a separate process or thread and uses a socket: requests come in, clips go out, their samples in memory
that both sides share. When that memory is full, the worker waits until clips are freed, so the memory that a recording
takes does not depend on its length.
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

from conure.audio.files import Source, open_audio
from conure.engine.ipc.frames import encode_frame, receive_frame
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

MAX_CLIPS = 512
"""Clips in the shared memory. Their messages fit into the socket's buffer even if the other side does not read."""

Samples = NDArray[np.float32]


class ReadRecording(Struct, frozen=True, tag=True):
    """Requests the clips of a recording."""

    number: int
    path: bytes | None
    """As in the file system, which need not be UTF-8. None if the worker is a thread and has the source by number."""
    split: bool
    """Whether each channel is a clip of its own; else the channels are mixed."""
    max_seconds: float | None
    track: int | None = None
    """Of several audio tracks, from 1."""


class FreeRegions(Struct, frozen=True, tag=True):
    """Frees the clips at those offsets of the shared memory."""

    offsets: list[int]


class WorkerReady(Struct, frozen=True, tag=True):
    """The worker accepts requests."""


class WorkerBlocked(Struct, frozen=True, tag=True):
    """The worker waits until clips are freed."""


class RecordingOpened(Struct, frozen=True, tag=True):
    number: int
    channels: int
    announced_seconds: float | None
    """Duration in the container's header."""


class DecodedClip(Struct, frozen=True, tag=True):
    """A clip: `count` samples at `offset` of the shared memory. Times are in seconds of the recording."""

    number: int
    channel: int
    offset: int
    count: int
    start: float
    overlap: float
    """Seconds at the beginning that the previous clip contains, too."""


class RecordingEnded(Struct, frozen=True, tag=True):
    """All clips of the recording were sent."""

    number: int
    name: str
    seconds: float
    problems: list[str]


class RecordingFailed(Struct, frozen=True, tag=True):
    """No more clips of the recording follow."""

    number: int
    kind: str
    """Name of the exception class; in `conure.errors` if it is a ConureError."""
    message: str
    hint: str | None = None
    trace: str | None = None
    """Traceback of an unexpected exception."""


WorkerRequest = ReadRecording | FreeRegions
WorkerMessage = WorkerReady | WorkerBlocked | RecordingOpened | DecodedClip | RecordingEnded | RecordingFailed


class Setup(Struct, frozen=True):
    """Arguments of a worker process."""

    socket_fd: int
    memory_fd: int
    segmentation: SegmentationSettings


def main() -> None:
    """Entry point of a worker process."""
    setup = json.decode(sys.argv[1], type=Setup)
    memory = np.frombuffer(mmap.mmap(setup.memory_fd, 0), np.float32)
    run_worker(socket.socket(fileno=setup.socket_fd), memory, setup.segmentation, {})


def run_worker(
    connection: socket.socket,
    memory: Samples,
    segmentation: SegmentationSettings,
    files: Mapping[int, BinaryIO | bytes],
) -> None:
    """Runs until the peer closes its end of the connection; closes this end. `files`: sources by number."""
    with connection:
        try:
            _Worker(connection, memory, segmentation, files).run()
        except _PeerClosed:
            return


class _PeerClosed(Exception):
    """The process that sends requests has closed the connection."""


class _Worker:
    def __init__(
        self,
        connection: socket.socket,
        memory: Samples,
        segmentation: SegmentationSettings,
        files: Mapping[int, BinaryIO | bytes],
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._segmentation = segmentation
        self._files = files
        self._regions = RegionAllocator(len(memory), MAX_CLIPS)
        self._requests: deque[ReadRecording] = deque()
        self._unsent: list[WorkerMessage] = [WorkerReady()]
        self._decoder: msgpack.Decoder[WorkerRequest] = msgpack.Decoder(WorkerRequest)
        self._encoder = msgpack.Encoder()

    def run(self) -> None:
        self._send()
        while True:
            while not self._requests:
                self._receive()
            self._read(self._requests.popleft())

    def _read(self, request: ReadRecording) -> None:
        """The messages of a short recording are sent together."""
        number = request.number
        source = self._files[number] if request.path is None else os.fsdecode(request.path)
        try:
            self._decode(number, source, request)
        except _PeerClosed:
            raise
        except ConureError as error:
            self._unsent.append(RecordingFailed(number, type(error).__name__, error.message, error.hint))
        except Exception as error:
            message, trace = printable_name(str(error)), printable_name(traceback.format_exc())
            self._unsent.append(RecordingFailed(number, type(error).__name__, message, trace=trace))
        self._send()

    def _decode(self, number: int, source: Source, request: ReadRecording) -> None:
        channels: Literal["mix", "split"] = "split" if request.split else "mix"
        with open_audio(source, channels=channels, track=request.track, max_seconds=request.max_seconds) as reader:
            self._unsent.append(RecordingOpened(number, reader.channels, reader.duration_hint))
            for _, clips in split_blocks(reader.blocks(), self._segmentation):
                if any(isinstance(message, DecodedClip) for message in self._unsent):
                    self._send()
                for channel, clip in clips:
                    self._unsent.append(self._store(number, channel, clip))
            self._unsent.append(RecordingEnded(number, reader.name, reader.seconds_read, reader.problems))

    def _store(self, number: int, channel: int, clip: ClipSpan) -> DecodedClip:
        """Copies a clip to the shared memory; waits until it fits."""
        count = len(clip.samples)
        while (offset := self._regions.allocate(count)) is None:
            self._unsent.append(WorkerBlocked())
            self._send()
            self._receive()
        self._memory[offset : offset + count] = clip.samples
        return DecodedClip(number, channel, offset, count, clip.start, clip.overlap)

    def _send(self) -> None:
        if self._unsent:
            try:
                self._connection.sendall(encode_frame(self._encoder.encode(self._unsent)))
            except OSError:
                raise _PeerClosed from None
            self._unsent.clear()

    def _receive(self) -> None:
        """Waits for one request."""
        payload = receive_frame(self._connection)
        if payload is None:
            raise _PeerClosed
        request = self._decoder.decode(payload)
        if isinstance(request, ReadRecording):
            self._requests.append(request)
        else:
            for offset in request.offsets:
                self._regions.free(offset)
