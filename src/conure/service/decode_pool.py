"""Pool of decode workers: started on demand, replaced when they die.

A worker has a current recording and the next one, so that it is never idle between two. If a worker dies, its current
recording fails; the next one goes to another worker.
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

TASKS_PER_WORKER = 2
"""Recordings of a worker process, with the current one."""
MAX_FAILED_STARTS = 3
"""Processes in a row that died before they were ready."""


class DecodePool:
    """At most so many processes, and as many threads for sources that are not files on disk. Used by one thread."""

    def __init__(self, max_workers: int, segmentation: SegmentationSettings, samples: int) -> None:
        """`samples`: size of the memory that each worker shares."""
        self.max_workers = max_workers
        self._segmentation = segmentation
        self._samples = samples
        self._processes: list[DecodeWorker] = []
        self._threads: list[DecodeWorker] = []
        self._returned: deque[DecodeTask] = deque()
        """Tasks of workers that died, to be submitted again."""
        self._failed_starts = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def is_decoding(self) -> bool:
        """Whether more clips will come even if none is freed."""
        return any(worker.tasks and not worker.is_blocked for worker in (*self._processes, *self._threads))

    def submit(self, task: DecodeTask) -> bool:
        """False if all workers are busy; submit again after messages were received."""
        if self._returned:
            return False
        if HAS_PROCESSES and task.is_on_disk:
            return self._submit(task, self._processes, start_process, TASKS_PER_WORKER)
        return self._submit(task, self._threads, start_thread, 1)

    def receive(self, timeout: float | None) -> Iterator[tuple[DecodeWorker, WorkerMessage]]:
        """Messages of workers; none after the timeout or a `wake`.

        Raises EngineFailed if worker processes repeatedly fail to start.
        """
        for key, _ in self._selector.select(timeout):
            worker: DecodeWorker | None = key.data
            if worker is None:
                self._woken.recv(4096)
                continue
            messages = worker.receive()
            if messages is None:
                yield from self._remove_dead(worker)
                continue
            for message in messages:
                if isinstance(message, WorkerReady):
                    worker.is_ready, self._failed_starts = True, 0
                if isinstance(message, WorkerBlocked):
                    worker.is_blocked = True
                if isinstance(message, RecordingEnded | RecordingFailed):
                    worker.finish_task()
                yield worker, message
        while self._returned and self._submit(self._returned[0], self._processes, start_process, TASKS_PER_WORKER):
            self._returned.popleft()

    def wake(self) -> None:
        """Makes a blocked `receive` return; callable from any thread."""
        self._waker.send(b"\0")

    def close(self) -> None:
        """Ends all workers; threads end after their current block."""
        self._selector.close()
        for worker in (*self._processes, *self._threads):
            worker.stop()
        self._woken.close()
        self._waker.close()

    def _submit(
        self,
        task: DecodeTask,
        workers: list[DecodeWorker],
        start: Callable[[SegmentationSettings, int], DecodeWorker],
        max_tasks: int,
    ) -> bool:
        worker = min(workers, key=lambda worker: len(worker.tasks), default=None)
        if worker is None or (worker.tasks and len(workers) < self.max_workers):
            worker = start(self._segmentation, self._samples)
            workers.append(worker)
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        elif len(worker.tasks) == max_tasks:
            return False
        worker.submit(task)
        return True

    def _remove_dead(self, worker: DecodeWorker) -> Iterator[tuple[DecodeWorker, WorkerMessage]]:
        """Fails its current recording, unless the worker was never ready; the other tasks are submitted again."""
        self._selector.unregister(worker.connection)
        (self._threads if worker.thread else self._processes).remove(worker)
        reason = worker.exit_reason()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                message = f"decode worker processes do not start: {reason}"
                raise EngineFailed(message, "see their output on stderr")
        elif worker.tasks:
            task = worker.finish_task()
            message = f"{printable_name(str(task.source))}: its decode worker process died: {reason}"
            hint = "transcribe it alone, or convert it"
            yield worker, RecordingFailed(task.number, EngineFailed.__name__, message, hint)
        self._returned.extend(worker.tasks)
