"""A client of `/v1/realtime` for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.protocols.live_clients import Message, pcm16, pieces
from tests.protocols.servers import PATIENCE, Server, demo

__all__ = ["ASR", "CLIENT_COMMITS", "DIGITS", "RealtimeClient", "session_of", "connect_client", "texts"]

DIGITS = pcm16(demo(24_000))
ASR = "conversation.item.input_audio_transcription"
CLIENT_COMMITS: Message = {"turn_detection": None}


def session_of(**events: Any) -> Message:
    """Settings with the tiny model, which recognizes digits."""
    return {"type": "transcription", "audio": {"input": {"transcription": {"model": "tiny"}} | events}}


def texts(events: list[Message]) -> str:
    """The completed transcripts; each must equal the concatenation of its deltas."""
    deltas: dict[str, str] = {}
    transcripts = []
    for event in events:
        if event["type"] == f"{ASR}.delta":
            assert event["delta"]
            deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
        elif event["type"] == f"{ASR}.completed":
            assert event["transcript"] == deltas.get(event["item_id"], "")
            transcripts.append(event["transcript"])
    return " ".join(filter(None, transcripts))


class RealtimeClient:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind} | fields))

    def append(self, audio: bytes, **fields: Any) -> None:
        for piece in pieces(audio, 9_600):
            self.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode(), **fields)

    def commit(self, **fields: Any) -> None:
        self.send("input_audio_buffer.commit", **fields)

    def receive(self) -> Message:
        event: Message = json.loads(self.connection.recv(PATIENCE))
        return event

    def receive_until(self, kind: str) -> list[Message]:
        """The events to the first one of this type."""
        events = [self.receive()]
        while events[-1]["type"] != kind:
            events.append(self.receive())
        return events

    def update(self, **session: Any) -> Message:
        """Updates the session and returns it."""
        self.send("session.update", session=session)
        while (event := self.receive())["type"] == f"{ASR}.delta":
            pass
        assert event["type"] == "session.updated", event
        updated: Message = event["session"]
        return updated

    def receive_error(self) -> Message:
        event = self.receive()
        assert event["type"] == "error", event
        error: Message = event["error"]
        return error


@contextmanager
def connect_client(
    server: Server, query: str = "?intent=transcription", subprotocols: Sequence[str] = (), **headers: str
) -> Iterator[RealtimeClient]:
    with connect(
        server.url(f"/v1/realtime{query}"),
        max_size=None,
        open_timeout=PATIENCE,
        subprotocols=[*subprotocols] or None,  # type: ignore[arg-type]
        additional_headers=headers,
    ) as connection:
        yield RealtimeClient(connection)
