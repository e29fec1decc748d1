"""Channels of one connection: each has its own samples; they open, fail and end together."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from conure.audio.formats import AudioFormat
from conure.engine import messages as engine
from conure.errors import BadOption, Busy
from conure.service.access import ANONYMOUS, Usage
from conure.service.channel_streams import ChannelStreams
from conure.service.events import Cancelled, Event, Failed, Finished, Lag, Marker
from conure.service.live_service import StreamRequest
from tests.audio.recordings import encode, tone
from tests.service.test_live_service import Place, at, until

STEREO = AudioFormat("f32", channels=2)
RAMP = np.stack([np.arange(1_000) / 1_000, -np.arange(1_000) / 2_000]).astype("<f4")
"""Two channels that are not alike."""


class Few:
    """A caller that may have so many streams."""

    name = "few"

    def __init__(self, most: int) -> None:
        self.left = most

    async def begin_usage(self, scope: str) -> Usage:
        self.left -= 1
        if self.left < 0:
            raise Busy("no more")
        return await ANONYMOUS.begin_usage("live")


async def opened(place: Place, audio: AudioFormat = STEREO, channels: int = 2) -> ChannelStreams:
    return await ChannelStreams.open(place.service, StreamRequest(), audio, ANONYMOUS, channels)


def heard(place: Place, number: int) -> np.ndarray:
    sent = [asked.samples for asked in place.engine.of(engine.Audio) if asked.stream == number]
    return np.concatenate([np.empty(0, np.float32), *sent])


@pytest.mark.parametrize("size", [1, 3, 8, 333, 8_000])
def test_each_stream_gets_the_samples_of_its_channel(size: int) -> None:
    async def of(place: Place) -> None:
        streams = await opened(place)
        data = RAMP.T.tobytes()
        for begin in range(0, len(data), size):
            assert not streams.push_audio_now(data[begin : begin + size])
            await streams.push_audio(data[begin : begin + size])
        await streams.close()
        await until(lambda: len(place.engine.of(engine.Close)) == 2)
        for row, number in zip(RAMP, place.engine.receivers, strict=True):
            np.testing.assert_array_equal(heard(place, number), row)
        assert streams.seconds == 1_000 / 16_000
        assert [asked.stream for asked in place.engine.of(engine.Close)] == list(place.engine.receivers)
        await streams.push_audio(data)  # too late
        assert streams.seconds == 1_000 / 16_000
        streams.cancel()

    at(of)


def test_one_stream_takes_the_bytes_as_they_are() -> None:
    async def of(place: Place) -> None:
        streams = await opened(place, channels=1)
        assert streams.push_audio_now(RAMP.T.tobytes())
        await streams.push_audio(RAMP.T.tobytes())
        (number,) = place.engine.receivers
        np.testing.assert_allclose(heard(place, number), np.tile(RAMP.mean(axis=0), 2), atol=1e-7)
        streams.cancel()

    at(of)


def test_channels_of_a_container() -> None:
    async def of(place: Place) -> None:
        recording = encode(np.concatenate([tone(0.5), tone(0.5, hertz=1_000)]), container="flac", codec="flac")
        streams = await opened(place, AudioFormat("container"))
        for begin in range(0, len(recording), 500):
            await streams.push_audio(recording[begin : begin + 500])
        await streams.close()
        await until(lambda: len(place.engine.of(engine.Close)) == 2)
        first, second = (heard(place, number) for number in place.engine.receivers)
        assert len(first) == len(second) == 8_000
        assert not np.allclose(first, second)
        assert streams.problems == []
        streams.cancel()

    at(of)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_all_or_none_are_opened(most: int) -> None:
    async def of(place: Place) -> None:
        with pytest.raises(Busy, match="no more"):
            await ChannelStreams.open(place.service, StreamRequest(), AudioFormat("pcm16", channels=3), Few(most), 3)
        assert len(place.service) == 0
        assert not place.engine.receivers
        assert len(place.engine.of(engine.Cancel)) == most

    at(of)


def test_channels_that_the_audio_has_not_are_refused() -> None:
    async def of(place: Place) -> None:
        with pytest.raises(BadOption, match="3 channels"):
            await opened(place, channels=3)
        assert not place.engine.receivers

    at(of)


async def rest(streams: ChannelStreams) -> list[tuple[int, Event]]:
    return [pair async for pair in streams.events() if not isinstance(pair[1], Lag)]


def test_events_of_all_channels_are_in_order_of_arrival() -> None:
    async def of(place: Place) -> None:
        streams = await opened(place)
        first, second = place.engine.receivers
        telling = asyncio.create_task(rest(streams))
        await streams.finalize(7)
        for number in (second, first):
            await asyncio.sleep(0.01)
            place.engine.say(engine.Marker(number, 7))
        await streams.close()
        await streams.close()
        for number in (second, first):
            await asyncio.sleep(0.01)
            place.engine.say(engine.Finished(number))
        told = await telling
        assert told == [(1, Marker(7)), (0, Marker(7)), (1, Finished(0.0)), (0, Finished(0.0))]

    at(of)


def test_undecodable_audio_fails_all_channels() -> None:
    async def of(place: Place) -> None:
        streams = await opened(place)
        await streams.push_audio(RAMP.T.tobytes())
        await streams.push_audio(np.full(2, np.nan, "<f4").tobytes())
        await until(lambda: len(place.engine.of(engine.Close)) == 2)
        numbers = list(place.engine.receivers)
        assert [len(heard(place, number)) for number in numbers] == [1_000, 1_000]
        for number in numbers:
            place.engine.say(engine.Finished(number))
        told = await rest(streams)
        assert sorted(channel for channel, _ in told) == [0, 1]
        assert all(isinstance(event, Failed) and event.code == "unsupported_audio" for _, event in told)

    at(of)


def test_stop_and_cancel_end_all() -> None:
    async def of(place: Place) -> None:
        streams = await opened(place)
        streams.stop(Failed("client_too_slow", "nothing was read"))
        told = await rest(streams)
        assert [event for _, event in told] == [Failed("client_too_slow", "nothing was read")] * 2
        other = await opened(place)
        telling = asyncio.create_task(rest(other))
        await asyncio.sleep(0)
        other.cancel()
        other.cancel()
        assert [event for _, event in await telling] == [Cancelled()] * 2
        assert not place.engine.receivers

    at(of)


def test_closing_the_event_iterator_leaves_no_task() -> None:
    async def of(place: Place) -> None:
        streams = await opened(place)
        telling = asyncio.create_task(rest(streams))
        await asyncio.sleep(0.01)
        assert [task for task in asyncio.all_tasks() if "anext" in repr(task.get_coro())]
        telling.cancel()
        await asyncio.wait([telling])
        await asyncio.sleep(0.01)
        assert not [task for task in asyncio.all_tasks() if "anext" in repr(task.get_coro())]
        streams.cancel()

    at(of)
