"""Transcribes recordings with the engine: decoded and split on threads here; the engine gives priority to streams."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, TypeVar

from conure import metrics
from conure.audio.files import AudioReader, open_audio
from conure.engine import messages
from conure.engine.client import EngineClient
from conure.engine.messages import Samples
from conure.engine.plan import ModelInfo
from conure.errors import Busy, ConureError, EngineFailed, OutOfMemory, TooMany
from conure.service.access import ANONYMOUS, Caller, Usage
from conure.service.languages import check_language, prompt_id_for
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.segmented_recording import SegmentedRecording
from conure.service.tokenizer_cache import TokenizerCache
from conure.text.segments import segments_from_words
from conure.text.words import join_words, words_from_tokens
from conure.types import Token, Transcript, Word

__all__ = ["FileService", "Progress"]

BATCH_SECONDS, BATCH_SECONDS_ON_GPU = 60.0, 240.0
"""Audio that is sent to the engine at once. Words and progress are reported after each batch."""
MAX_CONCURRENT = 8
"""Recordings that all processes of the server transcribe at the same time; more wait."""
MAX_WAITING = 64
"""Recordings in all processes, with those that wait; more are refused."""
RETRY_AFTER = 5.0
SPEND_SECONDS = 10.0
"""Seconds of audio that are counted as usage at once."""
MIN_BYTE_RATE = 1_500
"""Bytes per second of strongly compressed speech: bounds the duration of a recording that does not announce it."""
RESERVE_RATIO, RESERVE_EXTRA = 1.02, 1.0
"""Margin of reservations: announced durations may be rounded, or omit the padding of encoders."""

Result = TypeVar("Result")

Progress = Callable[[float, float | None], None]
"""Called with the transcribed seconds, and the total seconds if the recording's header has them."""


class FileService:
    def __init__(
        self,
        engine: EngineClient,
        tokenizers: TokenizerCache,
        max_seconds: float | None = None,
        identity: ProcessIdentity = SINGLE_PROCESS,
    ) -> None:
        self.max_seconds = max_seconds
        concurrent = identity.share_of(MAX_CONCURRENT)
        self._max_waiting = identity.share_of(MAX_WAITING)
        self._engine = engine
        self._tokenizers = tokenizers
        self._slots = asyncio.Semaphore(concurrent)
        self._threads = ThreadPoolExecutor(concurrent, "recording")  # its threads block while they wait for the engine
        self._waiting = 0
        self._readings: set[_Job] = set()
        self._is_draining = False
        self._is_idle = asyncio.Event()

    async def transcribe(
        self,
        file: BinaryIO,
        model: ModelInfo,
        language: str | None,
        caller: Caller = ANONYMOUS,
        heard: Callable[[Word], None] | None = None,
        progress: Progress | None = None,
        track: int | None = None,
    ) -> Transcript:
        """Transcribes with mixed channels. Raises subclasses of BadRequest, Busy, OutOfMemory, and EngineFailed.

        `heard` is called with each final word, in order, while the rest is transcribed; `progress` with the progress.
        Both are called on the event loop. `track`: one of several audio tracks, from 1.
        If it is cancelled, it returns when no thread reads the file any more.
        """
        (transcript,) = await self._run(
            _Task(file, model, language, heard=heard, progress=progress, track=track), caller
        )
        return transcript

    async def transcribe_channels(
        self,
        file: BinaryIO,
        model: ModelInfo,
        language: str | None,
        caller: Caller = ANONYMOUS,
        track: int | None = None,
    ) -> list[Transcript]:
        """One transcript for each channel; as `transcribe`."""
        return await self._run(_Task(file, model, language, split=True, track=track), caller)

    async def _run(self, task: _Task, caller: Caller) -> list[Transcript]:
        if self._is_draining:
            metrics.REFUSED.labels("draining").inc()
            raise _server_stopping()
        model = task.model
        task = replace(task, language=check_language(model.name, task.language, model.languages, model.prompt_ids))
        if self._waiting >= self._max_waiting:
            metrics.REFUSED.labels("files_waiting").inc()
            raise Busy(f"too many recordings ({self._waiting}) are waiting", "retry later")
        self._waiting += 1
        try:
            usage = await caller.begin_usage("files")  # refuses before the recording waits
            try:
                async with self._slots:
                    if self._is_draining:
                        raise _server_stopping()
                    return await self._transcribe(task, usage)
            finally:
                usage.close()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._is_idle.set()

    async def drain(self, seconds: float) -> None:
        """Accepts no new recordings; waits for those in progress, at most so many seconds."""
        self._is_draining = True
        self._is_idle.clear()
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_idle.wait(), seconds)
        self.stop()

    def stop(self) -> None:
        """Abandons recordings in progress."""
        self._is_draining = True
        for job in self._readings:
            job.abandon()

    async def _transcribe(self, task: _Task, usage: Usage) -> list[Transcript]:
        loop, job = asyncio.get_running_loop(), _Job(usage)
        self._readings.add(job)
        done = loop.run_in_executor(self._threads, self._read, job, task, loop)
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            job.abandon()
            await asyncio.wait([done])
            done.exception()
            raise
        finally:
            self._readings.discard(job)
            job.spend()
        try:
            return done.result()
        except _Abandoned:
            raise job.limit_error or _server_stopping() from None

    def _read(self, job: _Job, task: _Task, loop: asyncio.AbstractEventLoop) -> list[Transcript]:
        """Runs on a thread, which blocks while the engine transcribes."""
        model, prompt = task.model, prompt_id_for(task.model.name, task.language, task.model.prompt_ids)
        recording = SegmentedRecording(
            lambda clips: job.wait(asyncio.run_coroutine_threadsafe(self._words(model, prompt, clips), loop)),
            batch_seconds=BATCH_SECONDS_ON_GPU if "cuda" in model.runner else BATCH_SECONDS,
        )
        size = task.file.seek(0, os.SEEK_END)
        task.file.seek(0)
        channels: Literal["mix", "split"] = "split" if task.split else "mix"
        with open_audio(task.file, channels=channels, track=task.track, max_seconds=self.max_seconds) as reader:
            job.wait(asyncio.run_coroutine_threadsafe(job.reserve(reader.duration_hint, size), loop))
            words: list[list[Word]] = [[] for _ in range(reader.channels)]

            def report(seconds: float) -> None:
                if task.progress:
                    loop.call_soon_threadsafe(task.progress, seconds, reader.duration_hint)

            for channel, word in recording.words(job.blocks(reader, loop), report):
                words[channel].append(word)
                if task.heard:
                    loop.call_soon_threadsafe(task.heard, word)
            metrics.AUDIO_SECONDS.labels("files").inc(reader.seconds_read)
            return [
                Transcript(
                    text=join_words(part),
                    duration=round(reader.seconds_read, 3),
                    language=task.language,
                    model=model.name,
                    channel=channel if task.split else None,
                    segments=tuple(segments_from_words(part)),
                    problems=tuple(reader.problems),
                )
                for channel, part in enumerate(words)
            ]

    async def _words(self, model: ModelInfo, prompt: int | None, clips: list[Samples]) -> list[list[Word]]:
        pending = [_PendingClip(self._engine, model.name, samples, prompt) for samples in clips]
        try:
            tokens_of_clips = [await clip.tokens for clip in pending]
        finally:
            for clip in pending:
                clip.cancel()
        tokenizer = self._tokenizers.of(model)
        return [words_from_tokens(tokens, tokenizer) for tokens in tokens_of_clips]


@dataclass(frozen=True)
class _Task:
    """A recording and the options of its transcription."""

    file: BinaryIO
    model: ModelInfo
    language: str | None
    split: bool = False
    """One transcript for each channel."""
    heard: Callable[[Word], None] | None = None
    progress: Progress | None = None
    track: int | None = None


class _Abandoned(Exception):
    """The transcript is no longer needed."""


class _Job:
    """State of a recording in progress, shared by its thread and the event loop."""

    def __init__(self, usage: Usage) -> None:
        self.seconds = 0.0
        """Of decoded audio."""
        self.limit_error: TooMany | None = None
        """The caller's limit is used up, and the recording is longer than announced."""
        self._usage = usage
        self._spent = 0.0
        self._is_abandoned = False
        self._pending: Future[Any] | None = None

    async def reserve(self, announced: float | None, size: int) -> None:
        """Reserves the announced seconds; without them, the most that the bytes may contain.

        Thus limits apply to concurrent recordings as to consecutive ones. Raises TooMany.
        """
        seconds = announced if announced and 0 < announced < math.inf else size / MIN_BYTE_RATE
        await self._usage.reserve(seconds * RESERVE_RATIO + RESERVE_EXTRA)

    def spend(self) -> None:
        """Counts the audio decoded since the last call. Called on the event loop."""
        try:
            self._usage.spend(self.seconds - self._spent)
        except TooMany as error:
            self.limit_error = self.limit_error or error
            self.abandon()
        self._spent = self.seconds

    def abandon(self) -> None:
        """The thread ends after its current block."""
        self._is_abandoned = True
        if self._pending:
            self._pending.cancel()

    def blocks(self, reader: AudioReader, loop: asyncio.AbstractEventLoop) -> Iterator[Samples]:
        counted = 0.0
        for block in reader.blocks():
            self.seconds = reader.seconds_read
            if self.seconds - counted >= SPEND_SECONDS:
                counted = self.seconds
                loop.call_soon_threadsafe(self.spend)
            if self._is_abandoned:
                raise _Abandoned
            yield block

    def wait(self, pending: Future[Result]) -> Result:
        self._pending = pending
        if self._is_abandoned:
            pending.cancel()
        try:
            return pending.result()
        except CancelledError:
            raise _Abandoned from None


class _PendingClip:
    """A clip that the engine transcribes; sent again after a restart of the engine."""

    def __init__(self, engine: EngineClient, model: str, samples: Samples, prompt: int | None) -> None:
        self.tokens: asyncio.Future[list[Token]] = asyncio.get_running_loop().create_future()
        self._decoded: list[Token] = []
        self._engine = engine
        self._request = messages.Clip(engine.register(self), model, samples, prompt)
        engine.send(self._request)

    def on_event(self, answer: messages.StreamEvent) -> None:
        match answer:
            case messages.StreamTokens(_, tokens):
                self._decoded += tokens
            case messages.Finished():
                self._resolve(None)
            case messages.Failed(_, code, message, hint):
                kind = OutOfMemory if code == OutOfMemory.code else EngineFailed
                self._resolve(kind(message, hint))

    def on_restart(self) -> None:
        self._decoded.clear()
        self._engine.send(self._request)

    def on_failure(self, error: ConureError) -> None:
        self._resolve(error)

    def cancel(self) -> None:
        if not self.tokens.done() or self.tokens.cancelled():
            self._engine.send(messages.Cancel(self._request.stream))
        self._engine.unregister(self._request.stream)
        self.tokens.cancel()

    def _resolve(self, error: ConureError | None) -> None:
        if self.tokens.done():
            return
        if error:
            self.tokens.set_exception(error)
        else:
            self.tokens.set_result(self._decoded)


def _server_stopping() -> Busy:
    return Busy("the server is about to stop", "retry later or use another server", RETRY_AFTER)
