"""Many recordings at the speed of the device, in constant memory.

    recordings -> readers (processes) -> pieces -> batches of like length, across recordings -> tokens -> words, joined

Readers decode and cut while one batch is on the device and the next one waits there. All that keeps order, and the
words, is in the thread that asks for results. What may be on its way is bounded by the readers' memory; what may wait
for a recording before it, by its words.

What becomes of a recording does not depend on the others: its pieces are those that it has alone. One that cannot be
read, whose reader dies or whose pieces break the device, fails alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from conure import errors
from conure.audio.files import Source
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

RATE = 16_000
MOST_WORKERS = 16
LOOK_AHEAD = 2
"""Batches that are waited for, while more pieces come: of two there is some choice of like lengths."""
PATIENCE = 0.25
"""Seconds that a piece waits for others while the device has nothing to do."""
MOST_WAITING = 4096
"""Recordings that wait for the one before them."""
MOST_WORDS = 500_000
"""Words of theirs, 55 hours of speech: above, no further recording is begun."""
OF_A_RECORDING = (UnsupportedAudio, NoSuchTrack, AudioTooLong, AudioNotFound, EngineFailed)
"""What concerns nothing but a recording; other errors of ours concern the call."""

Tokens = TypeVar("Tokens")
Progress = Callable[[float, float | None], None]
"""Called with the seconds done and the seconds there are, when all containers have told."""


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
        cut: SegmentationSettings,
        batch_seconds: float,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`transcribe` is called in a thread of its own with one batch of clips, mono at 16 kHz; `words_of` gets the
        tokens of a clip and its seconds, and gives words in times of the clip."""
        workers = _workers(sources, workers)
        self._tasks = (DecodeTask(number, source, split, max_seconds, track) for number, source in enumerate(sources))
        self._transcribe = transcribe
        self._words_of = words_of
        self._progress = progress
        self._enough = LOOK_AHEAD * batch_seconds
        self._stock = ClipQueue(batch_seconds)
        self._running: deque[tuple[list[HeldClip], Future[Sequence[Tokens | Exception]]]] = deque()
        self._open: dict[int, RecordingWords] = {}
        """Those that were begun and not yet given, in their order."""
        self._words = 0
        """Of recordings that are open."""
        self._given = 0.0
        """Seconds of those that are not open any more."""
        self._are_all_begun = False
        on_their_way = (2 + LOOK_AHEAD) * batch_seconds / workers + 4 * cut.max_seconds
        self._readers = DecodePool(workers, cut, int(on_their_way * RATE))
        self._device = ThreadPoolExecutor(1, "conure-device")

    def results(self) -> Generator[RecordingWords, None, None]:
        """Each recording in the order given, when it is over. Raises errors of ours that concern more than one.

        Nothing is left running when it has ended or was closed.
        """
        try:
            coming = next(self._tasks, None)
            while coming or self._open:
                while coming and not self._is_far_ahead() and self._readers.submit(coming):
                    self._open[coming.number] = RecordingWords(coming)
                    coming = next(self._tasks, None)
                self._are_all_begun = coming is None
                self._feed()
                for reader, answer in self._readers.receive(self._patience()):
                    self._hear(reader, answer)
                self._collect()
                yield from self._over()
        finally:
            self._device.shutdown(cancel_futures=True)
            self._readers.close()

    def _is_far_ahead(self) -> bool:
        return len(self._open) >= MOST_WAITING or self._words >= MOST_WORDS

    def _feed(self) -> None:
        """Keeps one batch on the device and one behind it."""
        while self._stock.oldest and len(self._running) < 2:
            is_full = self._stock.seconds >= self._enough
            if not is_full and (self._running or (self._readers.is_decoding and self._patience() != 0)):
                return
            batch = self._stock.pop_batch()
            task = self._device.submit(self._try, [piece.samples for piece in batch])
            self._running.append((batch, task))
            task.add_done_callback(lambda _: self._readers.wake())

    def _patience(self) -> float | None:
        """How long the oldest piece may wait for others; None where it waits for the device."""
        oldest = self._stock.oldest
        if oldest is None or self._running:
            return None
        return max(0.0, oldest.received_at + PATIENCE - time.monotonic())

    def _try(self, clips: list[Samples]) -> Sequence[Tokens | Exception]:
        """Where a batch breaks, its clips are heard one by one, and only those that break alone are lost."""
        try:
            return self._transcribe(clips)
        except ConureError:
            raise
        except Exception as error:
            if len(clips) == 1:
                return [error]
        return [tokens for clip in clips for tokens in self._try([clip])]

    def _hear(self, reader: DecodeWorker, answer: WorkerMessage) -> None:
        match answer:
            case RecordingOpened(number, channels, hint):
                self._open[number].channels, self._open[number].announced_seconds = channels, hint
            case DecodedClip(number):
                recording = self._open.get(number)
                if recording is None or recording.error:
                    reader.free_clips([answer.offset])
                    return
                piece = HeldClip(recording, reader, answer, time.monotonic())
                recording.clips.append(piece)
                self._stock.add(piece)
            case RecordingEnded(number):
                if number in self._open:
                    self._words += self._open[number].finish(answer)
            case RecordingFailed(number):
                if number in self._open:
                    self._fail(self._open[number], _error(answer))

    def _collect(self) -> None:
        """What the device has done."""
        while self._running and self._running[0][1].done():
            batch, task = self._running.popleft()
            for reader in {piece.worker for piece in batch}:
                reader.free_clips([piece.message.offset for piece in batch if piece.worker is reader])
            for piece, tokens in zip(batch, task.result(), strict=True):
                recording = piece.recording
                if not recording.error:
                    self._settle(recording, piece, tokens)
            self._report()

    def _settle(self, recording: RecordingWords, piece: HeldClip, tokens: Tokens | Exception) -> None:
        try:
            if isinstance(tokens, Exception):
                raise tokens
            self._words += recording.add_words(piece, self._words_of(tokens, piece.seconds))
        except Exception as error:
            self._fail(recording, error)

    def _fail(self, recording: RecordingWords, error: Exception) -> None:
        for piece in self._stock.remove_recording(recording):
            piece.worker.free_clips([piece.message.offset])
        self._words -= len(recording.words)
        recording.fail(error)

    def _over(self) -> Iterator[RecordingWords]:
        while self._open:
            number, recording = next(iter(self._open.items()))
            if not recording.is_over:
                return
            if isinstance(recording.error, ConureError) and not isinstance(recording.error, OF_A_RECORDING):
                raise recording.error
            del self._open[number]
            self._words -= len(recording.words)
            self._given += recording.processed_seconds
            yield recording
            if not self._open:
                self._report()

    def _report(self) -> None:
        if self._progress:
            open_ones = self._open.values()
            done = self._given + sum(recording.processed_seconds for recording in open_ones)
            hints = [recording.announced_seconds for recording in open_ones]
            told = sum(hint for hint in hints if hint)
            self._progress(done, self._given + told if self._are_all_begun and None not in hints else None)


def _workers(sources: Iterable[Source], asked: int | None) -> int:
    """How many read: one core is left for whoever feeds the device."""
    workers = asked or min(processor_count() - 1, MOST_WORKERS)
    return max(1, min(workers, len(sources)) if isinstance(sources, Sized) else workers)


def _error(failed: RecordingFailed) -> Exception:
    """As it was raised where the recording was read."""
    kind = getattr(errors, failed.kind, None)
    if kind is not None:
        known: ConureError = kind(failed.message, failed.hint)
        return known
    error: Exception = type(failed.kind, (RuntimeError,), {})(failed.message)
    if failed.trace:
        error.add_note(failed.trace)
    return error
