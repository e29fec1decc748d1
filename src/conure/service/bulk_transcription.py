"""Transcribes many recordings at the full speed of the device, in constant memory.

    recordings -> decode workers -> clips -> batches of similar length, across recordings -> tokens -> merged words

Workers decode and split recordings while one batch is on the device and another one waits there. Ordering and words are
the work of the thread that iterates over the results. Clips in progress are bounded by the workers' memory; recordings
that wait for an earlier one, by their words.

The result of a recording does not depend on the others. A recording that cannot be decoded, whose worker dies or whose
clips fail on the device fails alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from conure import errors
from conure.audio.files import Source
from conure.constants import SAMPLE_RATE
from conure.cpu_count import processor_count
from conure.errors import AudioNotFound, AudioTooLong, ConureError, EngineFailed, NoSuchTrack, UnsupportedAudio
from conure.service.clip_queue import ClipQueue
from conure.service.decode_pool import DecodePool
from conure.service.decode_process import (
    DecodedClip,
    RecordingEnded,
    RecordingFailed,
    RecordingOpened,
    Samples,
    WorkerMessage,
)
from conure.service.decode_worker import DecodeTask, DecodeWorker
from conure.service.recording_words import HeldClip, RecordingWords
from conure.types import Word
from conure.vad.segmentation import SegmentationSettings

__all__ = ["BulkTranscription", "Progress"]

MAX_WORKERS = 16
LOOK_AHEAD = 2
"""Batches of clips to collect before one is formed, so that there are clips of similar length."""
MAX_CLIP_WAIT = 0.25
"""Seconds that a clip waits for others while the device is idle."""
MAX_OPEN_RECORDINGS = 4096
"""Recordings in progress, most of which wait for an earlier one."""
MAX_WORDS = 500_000
"""Words of these, 55 hours of speech; above, no further recording is started."""
RECORDING_ERRORS = (UnsupportedAudio, NoSuchTrack, AudioTooLong, AudioNotFound, EngineFailed)
"""Errors of a single recording; any other ConureError ends the iteration."""

Tokens = TypeVar("Tokens")
Progress = Callable[[float, float | None], None]
"""Called with the seconds done and the total seconds; None while the total is unknown."""


class BulkTranscription(Generic[Tokens]):
    """One pass over recordings."""

    def __init__(
        self,
        sources: Iterable[Source],
        transcribe: Callable[[list[Samples]], Sequence[Tokens]],
        words_of: Callable[[Tokens, float], Sequence[Word]],
        *,
        split: bool = False,
        track: int | None = None,
        max_seconds: float | None = None,
        segmentation: SegmentationSettings,
        batch_seconds: float,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`transcribe` is called on a separate thread with one batch of clips, mono at 16 kHz; `words_of` gets the
        tokens of a clip and its seconds, and returns words in times of the clip."""
        workers = _worker_count(sources, workers)
        self._tasks = (DecodeTask(number, source, split, max_seconds, track) for number, source in enumerate(sources))
        self._transcribe = transcribe
        self._words_of = words_of
        self._progress = progress
        self._enough_seconds = LOOK_AHEAD * batch_seconds
        self._queue = ClipQueue(batch_seconds)
        self._running: deque[tuple[list[HeldClip], Future[Sequence[Tokens | Exception]]]] = deque()
        self._open: dict[int, RecordingWords] = {}
        """Recordings that are started and not returned yet, in order."""
        self._open_words = 0
        self._returned_seconds = 0.0
        """Of recordings that were returned."""
        self._are_all_started = False
        worker_seconds = (2 + LOOK_AHEAD) * batch_seconds / workers + 4 * segmentation.max_seconds
        self._workers = DecodePool(workers, segmentation, int(worker_seconds * SAMPLE_RATE))
        self._device = ThreadPoolExecutor(1, "conure-device")

    def results(self) -> Generator[RecordingWords, None, None]:
        """Each recording, in the given order, when it is finished. Raises ConureErrors that affect all recordings.

        All workers and threads have ended when it returns or is closed.
        """
        try:
            task = next(self._tasks, None)
            while task or self._open:
                while task and not self._is_far_ahead() and self._workers.submit(task):
                    self._open[task.number] = RecordingWords(task)
                    task = next(self._tasks, None)
                self._are_all_started = task is None
                self._submit_batches()
                for worker, message in self._workers.receive(self._receive_timeout()):
                    self._handle(worker, message)
                self._collect_results()
                yield from self._pop_finished()
        finally:
            self._device.shutdown(cancel_futures=True)
            self._workers.close()

    def _is_far_ahead(self) -> bool:
        return len(self._open) >= MAX_OPEN_RECORDINGS or self._open_words >= MAX_WORDS

    def _submit_batches(self) -> None:
        """Keeps one batch on the device and one behind it."""
        while self._queue.oldest and len(self._running) < 2:
            is_enough = self._queue.seconds >= self._enough_seconds
            if not is_enough and (self._running or (self._workers.is_decoding and self._receive_timeout() != 0)):
                return
            batch = self._queue.pop_batch()
            result = self._device.submit(self._transcribe_batch, [clip.samples for clip in batch])
            self._running.append((batch, result))
            result.add_done_callback(lambda _: self._workers.wake())

    def _receive_timeout(self) -> float | None:
        """How long the oldest clip may wait for others; None if it waits for the device or there is none."""
        oldest = self._queue.oldest
        if oldest is None or self._running:
            return None
        return max(0.0, oldest.received_at + MAX_CLIP_WAIT - time.monotonic())

    def _transcribe_batch(self, clips: list[Samples]) -> Sequence[Tokens | Exception]:
        """If a batch fails, its clips are retried one by one, so that only those that fail alone are lost."""
        try:
            return self._transcribe(clips)
        except ConureError:
            raise
        except Exception as error:
            if len(clips) == 1:
                return [error]
        return [tokens for clip in clips for tokens in self._transcribe_batch([clip])]

    def _handle(self, worker: DecodeWorker, message: WorkerMessage) -> None:
        match message:
            case RecordingOpened(number, channels, seconds):
                self._open[number].channels, self._open[number].announced_seconds = channels, seconds
            case DecodedClip(number):
                recording = self._open.get(number)
                if recording is None or recording.error:
                    worker.free_clips([message.offset])
                    return
                clip = HeldClip(recording, worker, message, time.monotonic())
                recording.clips.append(clip)
                self._queue.add(clip)
            case RecordingEnded(number):
                if number in self._open:
                    self._open_words += self._open[number].finish(message)
            case RecordingFailed(number):
                if number in self._open:
                    self._fail(self._open[number], _error(message))

    def _collect_results(self) -> None:
        """Takes over the results of finished batches."""
        while self._running and self._running[0][1].done():
            batch, result = self._running.popleft()
            for worker in {clip.worker for clip in batch}:
                worker.free_clips([clip.message.offset for clip in batch if clip.worker is worker])
            for clip, tokens in zip(batch, result.result(), strict=True):
                if not clip.recording.error:
                    self._add_words(clip.recording, clip, tokens)
            self._report()

    def _add_words(self, recording: RecordingWords, clip: HeldClip, tokens: Tokens | Exception) -> None:
        try:
            if isinstance(tokens, Exception):
                raise tokens
            self._open_words += recording.add_words(clip, self._words_of(tokens, clip.seconds))
        except Exception as error:
            self._fail(recording, error)

    def _fail(self, recording: RecordingWords, error: Exception) -> None:
        for clip in self._queue.remove_recording(recording):
            clip.worker.free_clips([clip.message.offset])
        self._open_words -= len(recording.words)
        recording.fail(error)

    def _pop_finished(self) -> Iterator[RecordingWords]:
        while self._open:
            number, recording = next(iter(self._open.items()))
            if not recording.is_over:
                return
            if isinstance(recording.error, ConureError) and not isinstance(recording.error, RECORDING_ERRORS):
                raise recording.error
            del self._open[number]
            self._open_words -= len(recording.words)
            self._returned_seconds += recording.processed_seconds
            yield recording
            if not self._open:
                self._report()

    def _report(self) -> None:
        if self._progress:
            done = self._returned_seconds + sum(recording.processed_seconds for recording in self._open.values())
            announced = [recording.announced_seconds for recording in self._open.values()]
            total = self._returned_seconds + sum(seconds for seconds in announced if seconds)
            self._progress(done, total if self._are_all_started and None not in announced else None)


def _worker_count(sources: Iterable[Source], requested: int | None) -> int:
    """One core is left for the thread that feeds the device."""
    workers = requested or min(processor_count() - 1, MAX_WORKERS)
    return max(1, min(workers, len(sources)) if isinstance(sources, Sized) else workers)


def _error(failed: RecordingFailed) -> Exception:
    """The exception as it was raised in the worker."""
    kind = getattr(errors, failed.kind, None)
    if kind is not None:
        known: ConureError = kind(failed.message, failed.hint)
        return known
    error: Exception = type(failed.kind, (RuntimeError,), {})(failed.message)
    if failed.trace:
        error.add_note(failed.trace)
    return error
