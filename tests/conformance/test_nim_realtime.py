"""NVIDIA's own Realtime client, used like in its script."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from riva.client.argparse_utils import add_asr_config_argparse_parameters, add_realtime_config_argparse_parameters
from riva.client.asr import AudioChunkFileIterator
from riva.client.realtime import RealtimeClientASR

from tests.conformance.speech import SAID, WAV, packets
from tests.protocols.servers import Server
from tests.waiting import PATIENCE


def arguments(server: Server, *options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--server", "--ssl-root-cert", "--ssl-client-cert", "--ssl-client-key"):
        parser.add_argument(name)
    parser.add_argument("--use-ssl", action="store_true")
    parser.add_argument("--mic", action="store_true")
    parser.add_argument("--sample-rate-hz", type=int, default=16_000)
    parser.add_argument("--num-channels", type=int, default=1)
    add_asr_config_argparse_parameters(parser, max_alternatives=True, profanity_filter=True, word_time_offsets=True)
    add_realtime_config_argparse_parameters(parser)
    return parser.parse_args(["--server", f"{server.host}:{server.web}", "--language-code", "en-US", *options])


@asynccontextmanager
async def connected(server: Server, *options: str) -> AsyncIterator[RealtimeClientASR]:
    client = RealtimeClientASR(arguments(server, *options))
    await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


async def transcribe(client: RealtimeClientASR, chunks: object, forced: list[bool] | None = None) -> None:
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.send_audio_chunks(chunks, forced))
        tasks.create_task(client.receive_responses())


async def test_file(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with connected(server) as client:
        assert client.is_config_updated
        with AudioChunkFileIterator(WAV, 1_600) as chunks:
            await transcribe(client, chunks)
        client.save_responses(str(tmp_path / "said.txt"))
    assert (tmp_path / "said.txt").read_text() == SAID
    messages = [record.getMessage() for record in caplog.records]
    first_word = next(at for at, line in enumerate(messages) if line.startswith("Transcript: "))
    assert first_word < messages.index(f"Final Transcript: {SAID}")
    assert messages.count("Transcription completed") == 1


async def test_microphone(server: Server) -> None:
    async with connected(server, "--mic", "--model-name", "parakeet-1.1b-rnnt-en-US") as client:
        assert client.session_config["input_audio_format"] == "pcm16"
        await transcribe(client, packets(100))
        assert client.final_transcript == SAID


async def test_words_have_timestamps(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    async with connected(server, "--word-time-offsets") as client:
        await transcribe(client, packets(100))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    words = [row for row in rows if len(row) == 5 and row[0] in SAID.split()][-len(SAID.split()) :]
    assert [row[0] for row in words] == SAID.split()
    times = [float(time) for row in words for time in row[1:3]]
    assert times == sorted(times)
    assert times[-1] > 5_000, "milliseconds"


async def test_force_eou_ends_the_utterance(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chunks = packets(100)
    forced = [False] * len(chunks)
    forced[40] = True
    async with connected(server, "--stop-history", "3000", "--stop-history-eou", "2900") as client:
        await transcribe(client, chunks, forced)
        assert client.final_transcript == SAID
    parts = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Interim Transcript")]
    assert len(parts) == 2
    assert " ".join(part.partition(": ")[2] for part in parts) == SAID


async def test_rejections(server: Server) -> None:
    client = RealtimeClientASR(arguments(server, "--language-code", "xx-XX"))
    with pytest.raises(Exception, match="Failed to update session"):
        await client.connect()
    await client.disconnect()


async def test_aborted_client_leaves_no_stream(server: Server) -> None:
    async with connected(server) as client:
        for packet in packets(100)[:30]:
            await client._send_audio_chunk(packet)
        client.websocket.transport.abort()
    server.settled(0)
