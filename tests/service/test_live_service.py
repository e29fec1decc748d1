"""Streams of a server: opening, resuming and ending them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from conure.audio.formats import AudioFormat
from conure.engine import messages as engine
from conure.engine.client import EngineClient
from conure.errors import BadOption, Busy, ConureError, UnknownModel
from conure.service import event_log, live_service
from conure.service.events import Cancelled, Event, Failed, Finished, Lag, Marker
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.service.model_directory import ModelDirectory
from conure.service.tokenizer_cache import TokenizerCache
from tests.service.fake_engine import TOKENIZER, Engine
from tests.waiting import PATIENCE, until

DEMO = Path(__file__).parents[1] / "data" / "demo.flac"
F32 = AudioFormat("f32")


class Place:
    """A service before an engine that says what the test wants."""

    def __init__(self, resume_seconds: float) -> None:
        self.engine = Engine()
        handle = cast(EngineClient, self.engine)
        tokenizers = TokenizerCache()
        tokenizers._read = dict.fromkeys(self.engine.models_by_name, TOKENIZER)
        self.service = LiveService(handle, ModelDirectory(handle, ["live"], ["clips"]), tokenizers, resume_seconds)

    async def open(self, audio: AudioFormat = F32, **wanted: object) -> LiveStream:
        return await self.service.open_stream(StreamRequest(**wanted), audio)  # type: ignore[arg-type]

    def number(self) -> int:
        return max(self.engine.receivers)


def at(play: Callable[[Place], Awaitable[None]], resume_seconds: float = 60.0) -> Place:
    async def run() -> Place:
        place = Place(resume_seconds)
        await asyncio.wait_for(play(place), PATIENCE)
        return place

    return asyncio.run(run())


async def rest_of(stream: LiveStream, reader: int) -> list[Event]:
    told: list[tuple[int, Event]] = []
    while not told or not isinstance(told[-1][1], Finished | Failed | Cancelled):
        told += await asyncio.wait_for(stream.event_log.read_after(told[-1][0] if told else 0, reader), PATIENCE)
    return [event for _, event in told if not isinstance(event, Lag)]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"model": "none"}, UnknownModel),
        ({"model": "clips"}, BadOption),
        ({"latency_ms": 100}, BadOption),
        ({"final_model": "live"}, BadOption),
        ({"final_model": "clips", "final_budget_seconds": -1.0}, BadOption),
        ({"final_model": "clips", "final_budget_seconds": 1e9}, BadOption),
    ],
)
def test_an_invalid_request_opens_no_stream(wanted: dict[str, object], error: type[ConureError]) -> None:
    async def play(place: Place) -> None:
        with pytest.raises(error):
            await place.open(**wanted)
        assert len(place.service) == 0
        assert not place.engine.receivers

    at(play)


def test_without_an_engine_nothing_is_opened() -> None:
    async def play(place: Place) -> None:
        place.engine.is_ready = False
        with pytest.raises(Busy, match="engine restarting"):
            await place.open()

    at(play)


@pytest.mark.parametrize(("may_return", "with_audio", "kept"), [(True, True, 1), (False, True, 0), (True, False, 0)])
def test_only_resumable_streams_are_kept(may_return: bool, with_audio: bool, kept: int) -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        reader = place.service.attach(stream)
        if with_audio:
            await stream.push_audio(bytes(6_400), reader)
        place.service.detach(stream, reader, may_return)
        assert len(place.service) == len(place.engine.receivers) == kept
        assert (place.service.find_stream(stream.token) is stream) == bool(kept)

    at(play)


def test_a_stream_that_is_not_resumed_expires() -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        await stream.push_audio(bytes(6_400), 0)
        place.service.detach(stream, place.service.attach(stream), may_return=True)
        await until(lambda: not len(place.service))
        assert place.service.find_stream(stream.token) is None
        assert not place.engine.receivers

    at(play, resume_seconds=0.02)


def test_a_suspended_process_extends_the_time_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped for longer than a client may stay away: it may have knocked meanwhile."""
    monkeypatch.setattr("conure.event_loop.MIN_STALL", 0.1)

    async def play(place: Place) -> None:
        stream = await place.open()
        await stream.push_audio(bytes(6_400), 0)
        place.service.detach(stream, place.service.attach(stream), may_return=True)
        time.sleep(1.0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert place.service.find_stream(stream.token) is stream
        await until(lambda: place.service.find_stream(stream.token) is None)

    at(play, resume_seconds=0.3)


def test_the_connection_before_cannot_let_go_of_it() -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        await stream.push_audio(bytes(6_400), 0)
        first = place.service.attach(stream)
        second = place.service.attach(stream)
        place.service.detach(stream, first, may_return=False)
        assert place.service.find_stream(stream.token) is stream
        assert stream.event_log.reader_id == second

    at(play)


def test_ended_streams_are_kept_for_a_while_but_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_service, "MAX_ENDED_STREAMS", 3)

    async def play(place: Place) -> None:
        streams = [await place.open() for _ in range(5)]
        for stream in streams:
            await stream.push_audio(bytes(6_400), 0)
            stream.session.cancel()
            place.service.detach(stream, place.service.attach(stream), may_return=True)
        assert len(place.service) == 0
        assert [place.service.find_stream(stream.token) is not None for stream in streams] == [False] * 2 + [True] * 3

    at(play)


def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_UNREAD", 10)

    async def play(place: Place) -> None:
        stream = await place.open()
        reader = place.service.attach(stream)
        number = place.number()
        for marker in range(12):
            await stream.finalize(marker, reader)
        place.engine.say(*(engine.Marker(number, marker) for marker in range(12)))
        told = await rest_of(stream, reader)
        assert told[:-1] == [Marker(marker) for marker in range(10)]
        assert isinstance(told[-1], Failed)
        assert told[-1].code == "client_too_slow"
        assert not place.engine.receivers

    at(play)


def test_audio_that_cannot_be_read_fails_the_stream_at_its_end() -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        reader, number = place.service.attach(stream), place.number()
        await stream.push_audio(np.zeros(1_600, "<f4").tobytes(), reader)
        await stream.push_audio(np.full(1_600, np.nan, "<f4").tobytes(), reader)
        await stream.push_audio(bytes(6_400), reader)
        await stream.close(reader)
        assert [type(request) for request in place.engine.asked] == [engine.Open, engine.Audio, engine.Close]
        place.engine.say(engine.Finished(number))
        (told,) = await rest_of(stream, reader)
        assert isinstance(told, Failed)
        assert told.code == "unsupported_audio"

    at(play)


def test_nothing_follows_the_end() -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        await stream.close(0)
        await stream.close(0)
        with pytest.raises(BadOption, match="audio came after"):
            await stream.push_audio(bytes(4), 0)
        with pytest.raises(BadOption, match="finalize came after"):
            await stream.finalize(1, 0)
        assert len(place.engine.of(engine.Close)) == 1

    at(play)


async def give_up_on(work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])


def test_audio_of_a_replaced_connection_is_dropped() -> None:
    async def play(place: Place) -> None:
        stream = await place.open()
        first = place.service.attach(stream)
        await stream.push_audio(bytes(6_400), first)
        second = place.service.attach(stream)
        await stream.push_audio(bytes(6_400), first)
        await stream.finalize(1, first)
        await stream.close(first)
        assert stream.received_bytes == 6_400
        await stream.push_audio(bytes(6_400), second)
        assert stream.received_bytes == 12_800
        assert not place.engine.of(engine.Finalize)
        assert not place.engine.of(engine.Close)

    at(play)


def test_a_container_survives_a_cancelled_call() -> None:
    data = DEMO.read_bytes()

    async def play(place: Place) -> None:
        whole = await place.open(AudioFormat("container"))
        await whole.push_audio(data, 0)
        await whole.close(0)
        await until(lambda: place.engine.of(engine.Close))
        expected = place.engine.samples()
        place.engine.asked.clear()
        cut = await place.open(AudioFormat("container"))
        while cut.received_bytes < len(data):  # a client goes on from there
            await give_up_on(cut.push_audio(data[cut.received_bytes : cut.received_bytes + 10_000], 0))
        await give_up_on(cut.close(0))
        await cut.close(0)
        await until(lambda: place.engine.of(engine.Close))
        np.testing.assert_array_equal(place.engine.samples(), expected)

    at(play)


def test_draining_waits_and_then_says_so() -> None:
    async def play(place: Place) -> None:
        goes_on, ends = await place.open(), await place.open()
        readers = [place.service.attach(stream) for stream in (goes_on, ends)]
        draining = asyncio.create_task(place.service.drain(0.2))
        await asyncio.sleep(0.01)
        with pytest.raises(Busy, match="draining"):
            await place.open()
        ends.session.cancel()
        assert (await rest_of(ends, readers[1])) == [Cancelled()]
        place.service.detach(ends, readers[1], may_return=True)
        (told,) = await rest_of(goes_on, readers[0])
        assert isinstance(told, Failed)
        assert (told.code, told.retry_after) == ("server_stopped", 5.0)
        place.service.detach(goes_on, readers[0], may_return=True)
        await draining

    at(play)


def test_audio_is_processed_before_the_finalize_behind_it() -> None:
    async def play(place: Place) -> None:
        stream = await place.open(AudioFormat("pcm16", 24_000))
        reader = place.service.attach(stream)
        await stream.push_audio(bytes(48_000), reader)
        assert len(place.engine.samples()) < 16_000  # a filter holds some back
        await stream.finalize(1, reader)
        assert len(place.engine.samples()) == 16_000
        assert isinstance(place.engine.asked[-1], engine.Finalize)

    at(play)
