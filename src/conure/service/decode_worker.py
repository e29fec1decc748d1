"""Handles of decode workers: processes for files on disk, threads for sources that only this process has open.

Processes are started with a command instead of `multiprocessing`, which would run the program's main module again in
each: they import no torch, and programs need no `__main__` guard. The shared memory has no name, so that none is leaked
when processes are killed. A worker ends when its connection is closed.
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
from conure.background import spawn_thread
from conure.engine.ipc.frames import encode_frame, receive_frame
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
"""Other systems cannot pass a socket and anonymous memory to a process; only threads are used there."""

COMMAND = "import sys; sys.path[:] = sys.argv[2:]; from conure.service.decode_process import main; main()"
PROCESS_LOCAL = ("/dev/", "/proc/")
"""Below these, a path may mean another file in each process."""
SAMPLE_BYTES = 4
EXIT_TIMEOUT = 5.0
"""Seconds that a process has to end after its connection is closed."""


@dataclass(frozen=True)
class DecodeTask:
    """A recording to decode."""

    number: int
    source: Source
    split: bool
    max_seconds: float | None
    track: int | None = None
    """Of several audio tracks, from 1."""

    @property
    def is_on_disk(self) -> bool:
        """Whether another process can open the same file by its path."""
        if not isinstance(self.source, str | Path):
            return False
        path = Path(self.source)
        return path.is_file() and not str(path.absolute()).startswith(PROCESS_LOCAL)


@dataclass(eq=False)
class DecodeWorker:
    """Handle of a worker. It processes its tasks in order."""

    connection: socket.socket
    samples: Samples
    """The shared memory."""
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None
    files: dict[int, BinaryIO | bytes] = field(default_factory=dict)
    tasks: deque[DecodeTask] = field(default_factory=deque)
    """Unfinished tasks, the current one first."""
    is_ready: bool = False
    is_blocked: bool = False
    """It waits for free memory."""
    _decoder: msgpack.Decoder[list[WorkerMessage]] = field(default_factory=lambda: msgpack.Decoder(list[WorkerMessage]))

    def submit(self, task: DecodeTask) -> None:
        self.tasks.append(task)
        path = None
        if isinstance(task.source, str | Path):
            path = os.fsencode(task.source)
        else:
            self.files[task.number] = task.source
        self._send(ReadRecording(task.number, path, task.split, task.max_seconds, task.track))

    def free_clips(self, offsets: list[int]) -> None:
        """Frees clips in its memory."""
        self.is_blocked = False
        self._send(FreeRegions(offsets))

    def receive(self) -> list[WorkerMessage] | None:
        """The next messages; None if it is gone."""
        payload = receive_frame(self.connection)
        return None if payload is None else self._decoder.decode(payload)

    def finish_task(self) -> DecodeTask:
        """Removes and returns the current task."""
        task = self.tasks.popleft()
        self.files.pop(task.number, None)
        return task

    def _send(self, request: WorkerRequest) -> None:
        with suppress(OSError):  # `receive` detects that it is gone
            self.connection.sendall(encode_frame(msgpack.encode(request)))

    def stop(self) -> None:
        """Ends it: a process at once, a thread after its current block."""
        self.connection.close()
        if self.thread:
            self.thread.join()
        if self.process:
            self.process.kill()
            self.process.wait()

    def exit_reason(self) -> str:
        """Why it ended by itself; call it after `receive` has returned None."""
        if self.process:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(EXIT_TIMEOUT)
        self.stop()
        code = self.process.returncode if self.process else 0
        return f"killed by {signal.Signals(-code).name}" if -code in signal.valid_signals() else f"exit code {code}"


def start_process(segmentation: SegmentationSettings, samples: int) -> DecodeWorker:
    """Raises OSError if a limit of processes, memory or open files is reached."""
    ours, theirs = socket.socketpair()
    with theirs:
        memory = _anonymous_memory(samples * SAMPLE_BYTES)
        try:
            shared = np.frombuffer(mmap.mmap(memory, 0), np.float32)
            setup = json.encode(Setup(theirs.fileno(), memory, segmentation)).decode()
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", COMMAND, setup, *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), memory),
                process_group=0,  # Ctrl-C is sent to this process only, which ends its workers
            )
        finally:
            os.close(memory)
    return DecodeWorker(ours, shared, process=process)


def start_thread(segmentation: SegmentationSettings, samples: int) -> DecodeWorker:
    ours, theirs = socket.socketpair()
    worker = DecodeWorker(ours, np.empty(samples, np.float32))
    run = partial(run_worker, theirs, worker.samples, segmentation, worker.files)
    worker.thread = spawn_thread(run, "reading recordings", daemon=False)
    return worker


def _anonymous_memory(size: int) -> int:
    """Descriptor of so many bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("conure")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory
