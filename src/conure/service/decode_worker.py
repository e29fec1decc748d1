"""Who reads recordings for this process: processes for files on disk, threads for what only this process has open.

Processes are started by a command and not by `multiprocessing`, which would run a program's main module again in each:
they load no torch, and a program needs no guard around its first lines. They share memory that has no name, so none is
left when everybody is gone, however they went; and none of them outlives the socket to whoever started it.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec import json, msgpack

from conure.audio.files import Source
from conure.background import thread
from conure.engine.ipc.frames import frame, receive_frame
from conure.service.decode_process import (
    FreeRegions,
    ReadRecording,
    Samples,
    Setup,
    WorkerMessage,
    WorkerRequest,
    run_worker,
)
from conure.vad.segmentation import SegmentationSettings

__all__ = ["HAS_PROCESSES", "DecodeWorker", "DecodeTask", "start_process", "start_thread"]

HAS_PROCESSES = os.name == "posix"
"""Elsewhere a process cannot be handed a socket and memory without a name: threads read there."""

COMMAND = "import sys; sys.path[:] = sys.argv[2:]; from conure.service.decode_process import main; main()"
OF_THIS_PROCESS = ("/dev/", "/proc/")
"""Below these one path is something else in every process."""
BYTES = 4
"""Of a sample."""
PATIENCE = 5.0
"""Seconds that a process is given to end when its socket has."""


@dataclass(frozen=True)
class DecodeTask:
    """A recording to read."""

    number: int
    source: Source
    split: bool
    max_seconds: float | None
    track: int | None = None
    """Of several audio tracks, from 1."""

    @property
    def is_on_disk(self) -> bool:
        """Whether another process can open it, and finds the same."""
        if not isinstance(self.source, str | Path):
            return False
        path = Path(self.source)
        return path.is_file() and not str(path.absolute()).startswith(OF_THIS_PROCESS)


@dataclass(eq=False)
class DecodeWorker:
    """One of them, as this process sees it. It does what it is asked in that order."""

    connection: socket.socket
    samples: Samples
    """The memory that both sides see."""
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None
    files: dict[int, BinaryIO | bytes] = field(default_factory=dict)
    tasks: deque[DecodeTask] = field(default_factory=deque)
    """What it has not finished, the one that it is at first."""
    is_ready: bool = False
    is_blocked: bool = False
    """For room in the memory."""
    _decoder: msgpack.Decoder[list[WorkerMessage]] = field(default_factory=lambda: msgpack.Decoder(list[WorkerMessage]))

    def submit(self, task: DecodeTask) -> None:
        self.tasks.append(task)
        path = None
        if isinstance(task.source, str | Path):
            path = os.fsencode(task.source)
        else:
            self.files[task.number] = task.source
        self._send(ReadRecording(task.number, path, task.split, task.max_seconds, task.track))

    def free_clips(self, places: list[int]) -> None:
        """Pieces of its memory that nobody needs any more."""
        self.is_blocked = False
        self._send(FreeRegions(places))

    def receive(self) -> list[WorkerMessage] | None:
        """What it said together; None where it is gone."""
        payload = receive_frame(self.connection)
        return None if payload is None else self._decoder.decode(payload)

    def finish_task(self) -> DecodeTask:
        """The one that it was at is done."""
        task = self.tasks.popleft()
        self.files.pop(task.number, None)
        return task

    def _send(self, request: WorkerRequest) -> None:
        with suppress(OSError):  # that it is gone is found out where it is heard
            self.connection.sendall(frame(msgpack.encode(request)))

    def stop(self) -> None:
        """Ends it: a process at once, a thread with the block that it is at."""
        self.connection.close()
        if self.thread:
            self.thread.join()
        if self.process:
            self.process.kill()
            self.process.wait()

    def exit_reason(self) -> str:
        """How it ended by itself, after it was heard no more."""
        if self.process:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        self.stop()
        code = self.process.returncode if self.process else 0
        return f"killed by {signal.Signals(-code).name}" if -code in signal.valid_signals() else f"exit code {code}"


def start_process(cut: SegmentationSettings, samples: int) -> DecodeWorker:
    """Raises OSError where the machine has no more room for processes, memory or open files."""
    ours, theirs = socket.socketpair()
    with theirs:
        memory = _memory(samples * BYTES)
        try:
            seen = np.frombuffer(mmap.mmap(memory, 0), np.float32)
            setup = json.encode(Setup(theirs.fileno(), memory, cut)).decode()
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", COMMAND, setup, *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), memory),
                process_group=0,  # Ctrl-C comes to this process alone, which ends the others
            )
        finally:
            os.close(memory)
    return DecodeWorker(ours, seen, process=process)


def start_thread(cut: SegmentationSettings, samples: int) -> DecodeWorker:
    ours, theirs = socket.socketpair()
    reader = DecodeWorker(ours, np.empty(samples, np.float32))
    reading = partial(run_worker, theirs, reader.samples, cut, reader.files)
    reader.thread = thread(reading, "reading recordings", daemon=False)
    return reader


def _memory(size: int) -> int:
    """A descriptor of so many bytes that have no name."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("conure")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory
