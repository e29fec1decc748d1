"""Recordings through the engine: read and cut on a thread here, transcribed there in the time that streams leave."""

from __future__ import annotations

import asyncio
import concurrent.futures
from functools import partial
from typing import BinaryIO

from conure import metrics
from conure.audio.files import open_audio
from conure.engine import messages as engine
from conure.engine.handle import EngineHandle
from conure.engine.messages import Samples
from conure.engine.plan import ModelCard
from conure.errors import Busy, ConureError, EngineFailed
from conure.service.languages import check_language, prompt_slot
from conure.service.long_audio import LongAudio
from conure.service.tokenizers import Tokenizers
from conure.text.segments import segments_from_words
from conure.text.words import join_words, words_from_tokens
from conure.types import Token, Transcript, Word

__all__ = ["FileService"]

MOST_AT_ONCE = 8
"""Recordings that are read and cut at the same time; more wait."""
MOST_WAITING = 64


class FileService:
    def __init__(self, handle: EngineHandle, tokenizers: Tokenizers, max_seconds: float | None = None) -> None:
        self.max_seconds = max_seconds
        self._handle = handle
        self._tokenizers = tokenizers
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting = 0

    async def transcribe(self, file: BinaryIO, name: str, card: ModelCard, language: str | None) -> Transcript:
        """The channels mixed. Raises the children of BadRequest, Busy, and EngineFailed."""
        check_language(card.name, language, card.languages)
        if self._waiting >= MOST_WAITING:
            metrics.REFUSED.labels("files_waiting").inc()
            raise Busy(f"{self._waiting} recordings wait already", "try again in a while")
        self._waiting += 1
        try:
            async with self._room:
                return await asyncio.to_thread(self._read, file, card, language, asyncio.get_running_loop())
        finally:
            self._waiting -= 1

    def _read(
        self, file: BinaryIO, card: ModelCard, language: str | None, loop: asyncio.AbstractEventLoop
    ) -> Transcript:
        """On a thread, which waits for the engine."""
        prompt = prompt_slot(card.name, language, card.prompt_ids)
        long_audio = LongAudio(partial(self._wait_for_words, loop, card, prompt))
        with open_audio(file, channels="mix", max_seconds=self.max_seconds) as reader:
            words = [word for _, word in long_audio.words(reader.blocks())]
            metrics.AUDIO_SECONDS.labels("files").inc(reader.seconds_read)
            return Transcript(
                text=join_words(words),
                duration=round(reader.seconds_read, 3),
                language=language,
                model=card.name,
                segments=tuple(segments_from_words(words)),
                problems=tuple(reader.problems),
            )

    def _wait_for_words(
        self, loop: asyncio.AbstractEventLoop, card: ModelCard, prompt: int | None, clips: list[Samples]
    ) -> list[list[Word]]:
        asked = asyncio.run_coroutine_threadsafe(self._words(card, prompt, clips), loop)
        try:
            return asked.result()
        except concurrent.futures.CancelledError:
            raise EngineFailed("the server has stopped") from None

    async def _words(self, card: ModelCard, prompt: int | None, clips: list[Samples]) -> list[list[Word]]:
        waiting = [_WaitingClip(self._handle, card.name, samples, prompt) for samples in clips]
        try:
            found = [await clip.tokens for clip in waiting]
        finally:
            for clip in waiting:
                clip.cancel()
        tokenizer = self._tokenizers.of(card)
        return [words_from_tokens(tokens, tokenizer) for tokens in found]


class _WaitingClip:
    """One piece of a recording, asked for again where the engine was started anew."""

    def __init__(self, handle: EngineHandle, model: str, samples: Samples, prompt: int | None) -> None:
        self.tokens: asyncio.Future[list[Token]] = asyncio.get_running_loop().create_future()
        self._heard: list[Token] = []
        self._handle = handle
        self._request = engine.Clip(handle.register(self), model, samples, prompt)
        handle.ask(self._request)

    def answered(self, answer: engine.Answer) -> None:
        match answer:
            case engine.Heard(_, tokens):
                self._heard += tokens
            case engine.Finished():
                self._settle(None)
            case engine.Failed(_, _, message, hint):
                self._settle(EngineFailed(message, hint))

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
