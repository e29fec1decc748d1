"""All who read recordings for this process: started when there is something to read, replaced when they die.

A reader has a recording that it reads and the next one, so that it never waits to be asked. One that dies costs the
recording that it was at; the next one is read by another.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterator

from conure.errors import EngineFailed
from conure.printable import printable_name
from conure.service.decode_process import RecordingEnded, RecordingFailed, WorkerBlocked, WorkerMessage, WorkerReady
from conure.service.decode_worker import HAS_PROCESSES, DecodeTask, DecodeWorker, start_process, start_thread
from conure.vad.segmentation import SegmentationSettings

__all__ = ["DecodePool"]

ASKED_AHEAD = 2
"""Recordings of a reader, with the one that it is at."""
MOST_FALSE_STARTS = 3
"""Processes in a row that died before they took a request."""


class DecodePool:
    """At most so many processes, and as many threads for what is not on disk. Serves one thread."""

    def __init__(self, most: int, cut: SegmentationSettings, samples: int) -> None:
        """`samples`: what each may have on its way."""
        self.max_workers = most
        self._cut = cut
        self._samples = samples
        self._processes: list[DecodeWorker] = []
        self._threads: list[DecodeWorker] = []
        self._again: deque[DecodeTask] = deque()
        """Given back by readers that died."""
        self._false_starts = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def is_decoding(self) -> bool:
        """Whether more pieces come even if none is freed."""
        return any(reader.tasks and not reader.is_blocked for reader in (*self._processes, *self._threads))

    def submit(self, task: DecodeTask) -> bool:
        """Whether somebody took it; if nobody did, ask again when something was received."""
        if self._again:
            return False
        if HAS_PROCESSES and task.is_on_disk:
            return self._ask(task, self._processes, start_process, ASKED_AHEAD)
        return self._ask(task, self._threads, start_thread, 1)

    def receive(self, timeout: float | None) -> Iterator[tuple[DecodeWorker, WorkerMessage]]:
        """What readers say; nothing when the time is over or `wake` was called.

        Raises EngineFailed where no process comes up.
        """
        for key, _ in self._selector.select(timeout):
            reader: DecodeWorker | None = key.data
            if reader is None:
                self._woken.recv(4096)
                continue
            answers = reader.receive()
            if answers is None:
                yield from self._replace(reader)
                continue
            for answer in answers:
                if isinstance(answer, WorkerReady):
                    reader.is_ready, self._false_starts = True, 0
                if isinstance(answer, WorkerBlocked):
                    reader.is_blocked = True
                if isinstance(answer, RecordingEnded | RecordingFailed):
                    reader.finish_task()
                yield reader, answer
        while self._again and self._ask(self._again[0], self._processes, start_process, ASKED_AHEAD):
            self._again.popleft()

    def wake(self) -> None:
        """Ends a `receive` that waits; from any thread."""
        self._waker.send(b"\0")

    def close(self) -> None:
        """None is left after it. Threads end with the block that they read."""
        self._selector.close()
        for reader in (*self._processes, *self._threads):
            reader.stop()
        self._woken.close()
        self._waker.close()

    def _ask(
        self,
        task: DecodeTask,
        those: list[DecodeWorker],
        start: Callable[[SegmentationSettings, int], DecodeWorker],
        ahead: int,
    ) -> bool:
        reader = min(those, key=lambda one: len(one.tasks), default=None)
        if reader is None or (reader.tasks and len(those) < self.max_workers):
            reader = start(self._cut, self._samples)
            those.append(reader)
            self._selector.register(reader.connection, selectors.EVENT_READ, reader)
        elif len(reader.tasks) == ahead:
            return False
        reader.submit(task)
        return True

    def _replace(self, reader: DecodeWorker) -> Iterator[tuple[DecodeWorker, WorkerMessage]]:
        """What it was at has failed, unless it never came up; the rest is for others."""
        self._selector.unregister(reader.connection)
        (self._threads if reader.thread else self._processes).remove(reader)
        fate = reader.exit_reason()
        if not reader.is_ready:
            self._false_starts += 1
            if self._false_starts == MOST_FALSE_STARTS:
                message = f"processes that read recordings do not start: {fate}"
                raise EngineFailed(message, "what they wrote on stderr tells why")
        elif reader.tasks:
            task = reader.finish_task()
            message = f"{printable_name(str(task.source))}: the process that read it died: {fate}"
            yield (
                reader,
                RecordingFailed(task.number, EngineFailed.__name__, message, "transcribe it alone, or convert it"),
            )
        self._again.extend(reader.tasks)
