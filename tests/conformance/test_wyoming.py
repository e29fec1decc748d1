"""The `wyoming` package, used like in Home Assistant: `describe` first, then a connection per command."""

from __future__ import annotations

import asyncio
import io
import socket
import wave
from collections.abc import Iterable

import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient, AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import AsrProgram, Describe, Info
from wyoming.ping import Ping, Pong

from tests.conformance.speech import RATE, SAID, WAV, packets
from tests.protocols.servers import PATIENCE, Server

WIDTH, CHANNELS = 2, 1


def client_of(server: Server) -> AsyncTcpClient:
    return AsyncTcpClient(server.host, server.ports["wyoming"], connect_timeout=PATIENCE, read_timeout=PATIENCE)


async def describe(server: Server) -> AsrProgram:
    async with client_of(server) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        assert Info.is_type(event.type)
        (program,) = Info.from_event(event).asr
    return program


async def send_audio(client: AsyncClient, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        await client.write_event(AudioChunk(RATE, WIDTH, CHANNELS, chunk).event())


async def receive_until(client: AsyncClient, type_: str) -> list[Event]:
    """Receives events to the first one of this type."""
    events: list[Event] = []
    while not events or events[-1].type != type_:
        event = await client.read_event()
        assert event is not None, events
        events.append(event)
    return events


async def run_command(server: Server, language: str, chunks: Iterable[bytes]) -> str | None:
    """Like Home Assistant: sends all audio, then reads to the transcript and ignores other events."""
    async with client_of(server) as client:
        await client.write_event(Transcribe(language=language).event())
        await client.write_event(AudioStart(RATE, WIDTH, CHANNELS).event())
        await send_audio(client, chunks)
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    return None


async def test_home_assistant_commands(server: Server) -> None:
    program = await describe(server)
    assert program.installed
    assert program.version
    (language,) = {language for model in program.models if model.installed for language in model.languages}
    for _ in range(2):
        assert await run_command(server, language, packets(20)) == SAID
    assert await run_command(server, "en-US", packets(64)) == SAID
    assert await run_command(server, language, []) == ""


async def test_home_assistant_gets_an_empty_transcript_for_silence(server: Server) -> None:
    assert await run_command(server, "tlh", packets()) is None


async def test_concurrent_clients(server: Server) -> None:
    texts = await asyncio.gather(*(run_command(server, "en", packets()) for _ in range(8)))
    assert texts == [SAID] * 8


async def test_words_come_during_speech(server: Server) -> None:
    program = await describe(server)
    assert program.supports_transcript_streaming
    async with client_of(server) as client:
        for _ in range(2):
            await client.write_event(Transcribe(name=program.models[0].name).event())
            await client.write_event(AudioStart(RATE, WIDTH, CHANNELS).event())
            await send_audio(client, packets())
            early = await receive_until(client, "transcript-chunk")  # comes before `audio-stop`
            assert TranscriptStart.from_event(early[0]).language == "en"
            await client.write_event(AudioStop().event())
            *chunks, transcript, stop = [*early[1:], *await receive_until(client, "transcript-stop")]
            assert Transcript.from_event(transcript) == Transcript(SAID, language="en")
            assert "".join(TranscriptChunk.from_event(chunk).text for chunk in chunks) == SAID
            assert TranscriptStop.is_type(stop.type)


async def test_file_sent_by_the_package(server: Server) -> None:
    with wave.open(str(WAV)) as file:
        stereo = io.BytesIO()
        with wave.open(stereo, "wb") as copy:
            copy.setparams((2, 4, RATE, 0, "NONE", ""))
            samples = file.readframes(file.getnframes())
            copy.writeframes(b"".join((b"\0\0" + samples[at : at + 2]) * 2 for at in range(0, len(samples), 2)))
    stereo.seek(0)
    async with client_of(server) as client:
        await client.write_event(Transcribe(transcript_names=["Kitchen"], transcript_terms=["lights"]).event())
        with wave.open(stereo) as file:
            for event in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                await client.write_event(event.event())
        assert Transcript.from_event((await receive_until(client, "transcript"))[-1]).text == SAID


async def test_ping(server: Server) -> None:
    async with client_of(server) as client:
        await client.write_event(Ping("hello").event())
        (pong,) = await receive_until(client, "pong")
        assert Pong.from_event(pong).text == "hello"


@pytest.mark.parametrize(
    ("transcribe", "rate", "code", "part"),
    [
        (Transcribe(name="none"), RATE, "unknown_model", "tiny-live"),
        (Transcribe(language="tlh"), RATE, "unsupported_language", "it knows: en"),
        (Transcribe(), 4_000, "bad_option", "4000"),
    ],
)
async def test_rejections(server: Server, transcribe: Transcribe, rate: int, code: str, part: str) -> None:
    async with client_of(server) as client:
        await client.write_event(transcribe.event())
        await client.write_event(AudioStart(rate, WIDTH, CHANNELS).event())
        await send_audio(client, packets())
        (event,) = await receive_until(client, "error")
        error = Error.from_event(event)
        assert error.code == code
        assert part in error.text
        assert await client.read_event() is None


@pytest.mark.parametrize("count", [0, 1, 30])
async def test_aborted_client_leaves_no_stream(server: Server, count: int) -> None:
    client = client_of(server)
    await client.connect()
    await client.write_event(AudioStart(RATE, WIDTH, CHANNELS).event())
    await send_audio(client, packets()[:count])
    await receive_until(client, "transcript-start")
    assert server.health()["streams"] == 1
    assert client._writer is not None
    client._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client._writer.transport.abort()
