"""Like a backend that was written for these endpoints: form uploads with httpx, and a relayed stream."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.conformance.speech import RATE, SAID, WAV, packets
from tests.protocols.servers import PATIENCE, Server


@pytest.mark.parametrize(("path", "fields"), [("/v1/transcribe", None), ("/v2/transcribe", {"diarize": "true"})])
async def test_recording(server: Server, path: str, fields: dict[str, str] | None) -> None:
    files = {"file": ("audio.wav", BytesIO(WAV.read_bytes()), "audio/wav")}
    async with httpx.AsyncClient(base_url=server.base, timeout=PATIENCE) as client:
        response = await client.post(path, files=files, data=fields)
    response.raise_for_status()
    body = response.json()
    assert body["text"] == SAID
    assert " ".join(segment["text"] for segment in body["segments"]) == SAID
    for segment in body["segments"]:
        assert 0 <= float(segment["start"]) < float(segment["end"])
        assert not segment.get("speaker")  # clients detect speakers themselves if there are none
    assert body.get("detected_language") in (None, "en")


@pytest.mark.parametrize(
    ("path", "files", "fields", "status"),
    [
        ("/v1/transcribe", {"other": b"x"}, {}, 422),
        ("/v1/transcribe", {"file": b"x" * 1000}, {}, 415),
        ("/v2/transcribe", {"file": WAV.read_bytes()}, {"min_speakers": "3", "max_speakers": "2"}, 422),
    ],
)
async def test_rejections(
    server: Server, path: str, files: dict[str, bytes], fields: dict[str, str], status: int
) -> None:
    async with httpx.AsyncClient(base_url=server.base, timeout=PATIENCE) as client:
        response = await client.post(path, files=files, data=fields)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


async def relay(socket: ClientConnection, segments: list[dict[str, Any]]) -> None:
    async for message in socket:
        segment = json.loads(message)
        if segment.get("text"):
            segments.append(segment)


async def test_stream(server: Server) -> None:
    segments: list[dict[str, Any]] = []
    async with connect(f"{server.url('/v3/stream')}?sample_rate={RATE}", max_size=10 * 2**20) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"
        receiving = asyncio.create_task(relay(socket, segments))
        for packet in packets():
            await socket.send(packet)
        await socket.send("finalize")
        await receiving
        assert (socket.close_code, socket.close_reason) == (1000, "stream_complete")
    assert " ".join(segment["text"] for segment in segments) == SAID


async def test_rejected_stream_closes_with_a_reason(server: Server) -> None:
    async with connect(f"{server.url('/v3/stream')}?sample_rate=1") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert "sample rate 1" in closed.value.rcvd.reason


async def test_aborted_stream_is_discarded(server: Server) -> None:
    socket = await connect(server.url("/v3/stream"))
    await socket.recv()
    await socket.send(packets()[0])
    assert server.health()["streams"] == 1
    socket.transport.abort()
