"""Recordings with a fake engine: words as they are transcribed, separate channels, usage of callers."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import cast

import numpy as np
import pytest

from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.engine.messages import Request
from conure.errors import TooMany
from conure.service.access import Caller, Scope
from conure.service.callers import KeyedAccess, LocalUsage
from conure.service.file_service import FileService
from conure.service.keys import KeyFile, encode_keys, new_key
from conure.service.limits import Limits
from conure.service.tokenizer_cache import TokenizerCache
from conure.types import Transcript, Word
from tests.audio.recordings import encode
from tests.protocols.servers import demo
from tests.service.fake_engine import CLIPS, TOKENIZER, Engine, tokens
from tests.waiting import PATIENCE

RATE = 16_000


class Listener(Engine):
    """Hears a word in each clip: `a` where it is louder, else `b`."""

    def send(self, request: Request) -> None:
        super().send(request)
        if isinstance(request, engine.Clip):
            word = "a" if np.abs(request.samples).max() > 0.3 else "b"
            loop = asyncio.get_running_loop()
            loop.call_soon(self.say, engine.StreamTokens(request.stream, tokens(word, 0.5), 1.0))
            loop.call_soon(self.say, engine.Finished(request.stream))


class Guest:
    """A caller that notes what it is given."""

    name = "guest"

    def __init__(self, refused: bool = False) -> None:
        self.refused = refused
        self.reserved: list[float] = []
        self.spent: list[float] = []
        self.visits: list[str] = []

    async def begin_usage(self, scope: Scope) -> Guest:
        if self.refused:
            raise TooMany("one recording at a time", retry_after=3.0)
        self.visits.append(scope)
        return self

    async def reserve(self, seconds: float) -> None:
        self.reserved.append(seconds)

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
        tokenizers = TokenizerCache()
        tokenizers._read = dict.fromkeys(listener.models_by_name, TOKENIZER)
        service = FileService(cast(EngineClient, listener), tokenizers)
        await asyncio.wait_for(play(service), PATIENCE)  # type: ignore[arg-type]

    asyncio.run(run())


def test_words_are_reported_in_order_and_equal_the_transcript() -> None:
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


def test_usage_is_the_transcribed_audio() -> None:
    guest = Guest()

    async def play(service: FileService) -> None:
        await service.transcribe(recording(1, 4.0), CLIPS, None, guest)
        assert guest.spent == [4.0]
        assert 4.0 <= guest.reserved[0] < 6.0
        assert guest.visits == ["files", "closed"]
        with pytest.raises(TooMany):
            await service.transcribe(recording(1, 4.0), CLIPS, None, Guest(refused=True))
        await service.transcribe(recording(1, 4.0), CLIPS, None, guest)  # nothing is held by who was refused

    at(play)


def keyholder(minutes: float) -> Caller:
    """A caller with a key for so much audio in a day."""
    key, secret = new_key("a", datetime.now(UTC), limits=Limits(audio_minutes_per_day=minutes))
    file = Path(mkdtemp()) / "keys.json"
    file.write_text(encode_keys([key]))
    return KeyedAccess(KeyFile(file), LocalUsage()).identify(secret)


def as_webm(wav: io.BytesIO) -> io.BytesIO:
    """The same as a browser records it: nothing says how long it is."""
    with wave.open(wav) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)[None] / 32768
    return io.BytesIO(encode(samples, RATE, "webm", "libopus", live="1"))


def outcomes(found: list[Transcript | BaseException]) -> list[str]:
    return sorted("refused" if isinstance(each, TooMany) else cast(Transcript, each).text[:1] for each in found)


@pytest.mark.parametrize("announced", [True, False])
def test_limits_of_concurrent_and_consecutive_recordings_are_equal(announced: bool) -> None:
    """The first ones are transcribed, until what they announce, or could hold, is all that the key may have."""

    async def play(service: FileService) -> None:
        caller = keyholder(1.0)
        sent = [recording(1, 25.0) if announced else as_webm(recording(1, 25.0)) for _ in range(20)]
        works = (service.transcribe(file, CLIPS, None, caller) for file in sent)
        found = await asyncio.gather(*works, return_exceptions=True)
        most = 3 if announced else 2  # what says nothing of its length may be longer than it is
        assert 1 <= outcomes(found).count("a") <= most
        assert outcomes(found).count("refused") == 20 - outcomes(found).count("a")
        left = await service.transcribe(recording(1, 4.0), CLIPS, None, keyholder(1.0))
        assert left.text.startswith("a")

    at(play)


def test_an_unspent_reservation_is_released() -> None:
    async def play(service: FileService) -> None:
        caller = keyholder(1.0)
        for _ in range(3):  # 50 s announced, 4 s there
            cut_off = io.BytesIO(recording(1, 50.0).getvalue()[: 44 + 4 * 2 * RATE])
            found = await service.transcribe(cut_off, CLIPS, None, caller)
            assert found.duration == 4.0

    at(play)


def test_a_recording_that_is_longer_than_it_says_ends_where_nothing_is_left() -> None:
    """Nobody has more audio transcribed by announcing less."""

    class Strict(Guest):
        async def reserve(self, seconds: float) -> None:
            self.reserved.append(20.0)

        def spend(self, seconds: float) -> None:
            super().spend(seconds)
            if sum(self.spent) > 20.0:
                raise TooMany("that was all", retry_after=3.0)

    guest = Strict()

    async def play(service: FileService) -> None:
        with pytest.raises(TooMany, match="that was all"):
            await service.transcribe(recording(1, 300.0), CLIPS, None, guest)
        assert 20.0 < sum(guest.spent) < 300.0

    at(play)
