"""Recordings through the engine: read and cut on a thread here, transcribed there in the time that streams leave."""

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
from conure.engine import messages as engine
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

BATCH_SECONDS, BATCH_SECONDS_ON_CARD = 60.0, 240.0
"""Of audio that the engine is asked for at once: words and progress are told when so much is done."""
MOST_AT_ONCE = 8
"""Recordings that are read and cut at the same time, by all processes of the server; more wait."""
MOST_WAITING = 64
"""The same of those that wait."""
RETRY_AFTER = 5.0
PAID_TOGETHER = 10.0
"""Seconds of audio that a caller pays for at once."""
ENCODED_LEAST = 1_500
"""Bytes a second of the most compressed speech that is common: how long a recording may be that does not say so."""
RESERVE_RATIO, RESERVE_EXTRA = 1.02, 1.0
"""What is set aside beside the announced length, which may be rounded, or leave out what an encoder adds."""

Result = TypeVar("Result")

Progress = Callable[[float, float | None], None]
"""Seconds that were transcribed, and of how many, where the recording tells that."""


class FileService:
    def __init__(
        self,
        handle: EngineClient,
        tokenizers: TokenizerCache,
        max_seconds: float | None = None,
        place: ProcessIdentity = SINGLE_PROCESS,
    ) -> None:
        self.max_seconds = max_seconds
        at_once = place.share_of(MOST_AT_ONCE)
        self._most_waiting = place.share_of(MOST_WAITING)
        self._handle = handle
        self._tokenizers = tokenizers
        self._room = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, "recording")  # they wait for an engine that others may start
        self._waiting = 0
        self._readings: set[_Reading] = set()
        self._draining = False
        self._none_left = asyncio.Event()

    async def transcribe(
        self,
        file: BinaryIO,
        card: ModelInfo,
        language: str | None,
        caller: Caller = ANONYMOUS,
        heard: Callable[[Word], None] | None = None,
        progress: Progress | None = None,
        track: int | None = None,
    ) -> Transcript:
        """The channels mixed. Raises the children of BadRequest, Busy, OutOfMemory, and EngineFailed.

        `heard` is called with each word, in order and for good, while the rest is transcribed; `progress` with how far
        that is. Both on the event loop. `track`: which of several audio tracks, from 1.
        When it is cancelled it returns once nothing reads the file any more.
        """
        (transcript,) = await self._in_turn(
            _Task(file, card, language, heard=heard, progress=progress, track=track), caller
        )
        return transcript

    async def transcribe_channels(
        self,
        file: BinaryIO,
        card: ModelInfo,
        language: str | None,
        caller: Caller = ANONYMOUS,
        track: int | None = None,
    ) -> list[Transcript]:
        """Each channel apart."""
        return await self._in_turn(_Task(file, card, language, split=True, track=track), caller)

    async def _in_turn(self, task: _Task, caller: Caller) -> list[Transcript]:
        if self._draining:
            metrics.REFUSED.labels("draining").inc()
            raise _stopping()
        card = task.card
        task = replace(task, language=check_language(card.name, task.language, card.languages, card.prompt_ids))
        if self._waiting >= self._most_waiting:
            metrics.REFUSED.labels("files_waiting").inc()
            raise Busy(f"{self._waiting} recordings wait already", "try again in a while")
        self._waiting += 1
        try:
            visit = await caller.begin_usage("files")  # who may not is told before it has waited
            try:
                async with self._room:
                    if self._draining:
                        raise _stopping()
                    return await self._transcribe(task, visit)
            finally:
                visit.close()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._none_left.set()

    async def drain(self, seconds: float) -> None:
        """No new recordings; those that are being transcribed are waited for, so many seconds at most."""
        self._draining = True
        self._none_left.clear()
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_left.wait(), seconds)
        self.stop()

    def stop(self) -> None:
        """Recordings that go on are given up."""
        self._draining = True
        for reading in self._readings:
            reading.abandon()

    async def _transcribe(self, task: _Task, visit: Usage) -> list[Transcript]:
        loop, reading = asyncio.get_running_loop(), _Reading(visit)
        self._readings.add(reading)
        done = loop.run_in_executor(self._threads, self._read, reading, task, loop)
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            reading.abandon()
            await asyncio.wait([done])
            done.exception()
            raise
        finally:
            self._readings.discard(reading)
            reading.pay()
        try:
            return done.result()
        except _Abandoned:
            raise reading.over or _stopping() from None

    def _read(self, reading: _Reading, task: _Task, loop: asyncio.AbstractEventLoop) -> list[Transcript]:
        """On a thread, which waits for the engine."""
        card, prompt = task.card, prompt_id_for(task.card.name, task.language, task.card.prompt_ids)
        long_audio = SegmentedRecording(
            lambda clips: reading.wait(asyncio.run_coroutine_threadsafe(self._words(card, prompt, clips), loop)),
            batch_seconds=BATCH_SECONDS_ON_CARD if "cuda" in card.runner else BATCH_SECONDS,
        )
        size = task.file.seek(0, os.SEEK_END)
        task.file.seek(0)
        channels: Literal["mix", "split"] = "split" if task.split else "mix"
        with open_audio(task.file, channels=channels, track=task.track, max_seconds=self.max_seconds) as reader:
            reading.wait(asyncio.run_coroutine_threadsafe(reading.reserve(reader.duration_hint, size), loop))
            words: list[list[Word]] = [[] for _ in range(reader.channels)]

            def reached(seconds: float) -> None:
                if task.progress:
                    loop.call_soon_threadsafe(task.progress, seconds, reader.duration_hint)

            for channel, word in long_audio.words(reading.go_on(reader, loop), reached):
                words[channel].append(word)
                if task.heard:
                    loop.call_soon_threadsafe(task.heard, word)
            metrics.AUDIO_SECONDS.labels("files").inc(reader.seconds_read)
            return [
                Transcript(
                    text=join_words(said),
                    duration=round(reader.seconds_read, 3),
                    language=task.language,
                    model=card.name,
                    channel=channel if task.split else None,
                    segments=tuple(segments_from_words(said)),
                    problems=tuple(reader.problems),
                )
                for channel, said in enumerate(words)
            ]

    async def _words(self, card: ModelInfo, prompt: int | None, clips: list[Samples]) -> list[list[Word]]:
        waiting = [_WaitingClip(self._handle, card.name, samples, prompt) for samples in clips]
        try:
            found = [await clip.tokens for clip in waiting]
        finally:
            for clip in waiting:
                clip.cancel()
        tokenizer = self._tokenizers.of(card)
        return [words_from_tokens(tokens, tokenizer) for tokens in found]


@dataclass(frozen=True)
class _Task:
    """A recording, and what is wanted of it."""

    file: BinaryIO
    card: ModelInfo
    language: str | None
    split: bool = False
    """Its channels apart."""
    heard: Callable[[Word], None] | None = None
    progress: Progress | None = None
    track: int | None = None


class _Abandoned(Exception):
    """Nobody wants the transcript any more."""


class _Reading:
    """A thread that reads a recording, as the event loop sees it."""

    def __init__(self, visit: Usage) -> None:
        self.seconds = 0.0
        """Of audio that was read, whatever became of it."""
        self.over: TooMany | None = None
        """The caller has had all that it may have, and this recording is longer than it announced."""
        self._visit = visit
        self._paid = 0.0
        self._is_abandoned = False
        self._asked: Future[Any] | None = None

    async def reserve(self, announced: float | None, size: int) -> None:
        """Sets aside what the recording is said to have, in seconds; without that what its bytes may hold.

        So recordings that are sent together are let in as they would be one after the other. Raises TooMany.
        """
        seconds = announced if announced and 0 < announced < math.inf else size / ENCODED_LEAST
        await self._visit.reserve(seconds * RESERVE_RATIO + RESERVE_EXTRA)

    def pay(self) -> None:
        """For what was read since the last time. On the event loop."""
        try:
            self._visit.spend(self.seconds - self._paid)
        except TooMany as error:
            self.over = self.over or error
            self.abandon()
        self._paid = self.seconds

    def abandon(self) -> None:
        """It ends with the block that it is at."""
        self._is_abandoned = True
        if self._asked:
            self._asked.cancel()

    def go_on(self, reader: AudioReader, loop: asyncio.AbstractEventLoop) -> Iterator[Samples]:
        billed = 0.0
        for block in reader.blocks():
            self.seconds = reader.seconds_read
            if self.seconds - billed >= PAID_TOGETHER:
                billed = self.seconds
                loop.call_soon_threadsafe(self.pay)
            if self._is_abandoned:
                raise _Abandoned
            yield block

    def wait(self, asked: Future[Result]) -> Result:
        self._asked = asked
        if self._is_abandoned:
            asked.cancel()
        try:
            return asked.result()
        except CancelledError:
            raise _Abandoned from None


class _WaitingClip:
    """One piece of a recording, asked for again where the engine was started anew."""

    def __init__(self, handle: EngineClient, model: str, samples: Samples, prompt: int | None) -> None:
        self.tokens: asyncio.Future[list[Token]] = asyncio.get_running_loop().create_future()
        self._heard: list[Token] = []
        self._handle = handle
        self._request = engine.Clip(handle.register(self), model, samples, prompt)
        handle.ask(self._request)

    def answered(self, answer: engine.Answer) -> None:
        match answer:
            case engine.StreamTokens(_, tokens):
                self._heard += tokens
            case engine.Finished():
                self._settle(None)
            case engine.Failed(_, code, message, hint):
                kind = OutOfMemory if code == OutOfMemory.code else EngineFailed
                self._settle(kind(message, hint))

    def restarted(self) -> None:
        self._heard.clear()
        self._handle.ask(self._request)

    def lost(self, error: ConureError) -> None:
        self._settle(error)

    def cancel(self) -> None:
        if not self.tokens.done() or self.tokens.cancelled():
            self._handle.ask(engine.Cancel(self._request.stream))
        self._handle.forget(self._request.stream)
        self.tokens.cancel()

    def _settle(self, error: ConureError | None) -> None:
        if self.tokens.done():
            return
        if error:
            self.tokens.set_exception(error)
        else:
            self.tokens.set_result(self._heard)


def _stopping() -> Busy:
    return Busy("the server is about to stop", "ask another server, or again", RETRY_AFTER)
