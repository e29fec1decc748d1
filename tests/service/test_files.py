"""Recordings through an engine that stands in: words as they come, channels apart, callers."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from conure.engine import messages as engine
from conure.engine.handle import EngineHandle
from conure.engine.messages import Request
from conure.errors import TooMany
from conure.service.access import Scope
from conure.service.files import FileService
from conure.service.tokenizers import Tokenizers
from conure.types import Transcript, Word
from tests.doors.serving import demo
from tests.service.standing_in import CLIPS, TOKENIZER, Engine, tokens
from tests.waiting import PATIENCE

RATE = 16_000


class Listener(Engine):
    """Hears a word in each clip: `a` where it is louder, else `b`."""

    def ask(self, request: Request) -> None:
        super().ask(request)
        if isinstance(request, engine.Clip):
            word = "a" if np.abs(request.samples).max() > 0.3 else "b"
            loop = asyncio.get_running_loop()
            loop.call_soon(self.say, engine.Heard(request.stream, tokens(word, 0.5), 1.0))
            loop.call_soon(self.say, engine.Finished(request.stream))


class Guest:
    """A caller that notes what it is given."""

    name = "guest"

    def __init__(self, refused: bool = False) -> None:
        self.refused = refused
        self.spent: list[float] = []
        self.visits: list[str] = []

    async def begin(self, scope: Scope) -> Guest:
        if self.refused:
            raise TooMany("one recording at a time", retry_after=3.0)
        self.visits.append(scope)
        return self

    def spend(self, seconds: float) -> None:
        self.spent.append(seconds)

    def close(self) -> None:
        self.visits.append("closed")


def recording(channels: int, seconds: float) -> io.BytesIO:
    """Speech, the first channel louder than the others."""
    speech = np.tile(demo(), 1 + int(seconds * RATE) // len(demo()))[: int(seconds * RATE)]
    speech = speech / np.abs(speech).max()
    data = np.stack([speech * (0.9 if index == 0 else 0.2) for index in range(channels)], axis=1)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((data * 32767).astype("<i2").tobytes())
    file.seek(0)
    return file


def at(play: Callable[[FileService], object]) -> None:
    async def run() -> None:
        listener = Listener()
        tokenizers = Tokenizers()
        tokenizers._read = dict.fromkeys(listener.models, TOKENIZER)
        service = FileService(cast(EngineHandle, listener), tokenizers)
        await asyncio.wait_for(play(service), PATIENCE)  # type: ignore[arg-type]

    asyncio.run(run())


def test_words_are_told_as_they_come_and_are_those_of_the_transcript() -> None:
    heard: list[Word] = []

    async def play(service: FileService) -> None:
        found = await service.transcribe(recording(1, 90.0), CLIPS, None, heard=heard.append)
        assert heard == list(found.words)
        assert len(heard) >= 3
        assert [word.start for word in heard] == sorted(cast(float, word.start) for word in heard)
        for word in heard:
            assert word.tokens[0].start == word.start

    at(play)


def test_channels_apart() -> None:
    async def play(service: FileService) -> None:
        found: list[Transcript] = await service.transcribe_channels(recording(3, 4.0), CLIPS, None)
        assert [transcript.channel for transcript in found] == [0, 1, 2]
        assert [transcript.text for transcript in found] == ["a", "b", "b"]
        assert {transcript.duration for transcript in found} == {4.0}

    at(play)


def test_a_caller_pays_for_what_was_transcribed() -> None:
    guest = Guest()

    async def play(service: FileService) -> None:
        await service.transcribe(recording(1, 4.0), CLIPS, None, guest)
        assert guest.spent == [4.0]
        assert guest.visits == ["files", "closed"]
        with pytest.raises(TooMany):
            await service.transcribe(recording(1, 4.0), CLIPS, None, Guest(refused=True))
        await service.transcribe(recording(1, 4.0), CLIPS, None, guest)  # nothing is held by who was refused

    at(play)
