"""A client of `/v1/realtime` that says what a test wants and keeps what it hears."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.protocols.live_clients import Message, pcm16, pieces
from tests.protocols.servers import PATIENCE, Server, demo

__all__ = ["ASR", "CLIENT_COMMITS", "DIGITS", "Talk", "session_of", "talk", "texts"]

DIGITS = pcm16(demo(24_000))
ASR = "conversation.item.input_audio_transcription"
CLIENT_COMMITS: Message = {"turn_detection": None}


def session_of(**heard: Any) -> Message:
    """With the tiny model, which hears digits."""
    return {"type": "transcription", "audio": {"input": {"transcription": {"model": "tiny"}} | heard}}


def texts(heard: list[Message]) -> str:
    """What was completed, each of which must be what its deltas add up to."""
    deltas: dict[str, str] = {}
    said = []
    for told in heard:
        if told["type"] == f"{ASR}.delta":
            assert told["delta"]
            deltas[told["item_id"]] = deltas.get(told["item_id"], "") + told["delta"]
        elif told["type"] == f"{ASR}.completed":
            assert told["transcript"] == deltas.get(told["item_id"], "")
            said.append(told["transcript"])
    return " ".join(filter(None, said))


class Talk:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind} | fields))

    def append(self, audio: bytes, **fields: Any) -> None:
        for piece in pieces(audio, 9_600):
            self.say("input_audio_buffer.append", audio=base64.b64encode(piece).decode(), **fields)

    def commit(self, **fields: Any) -> None:
        self.say("input_audio_buffer.commit", **fields)

    def hear(self) -> Message:
        told: Message = json.loads(self.connection.recv(PATIENCE))
        return told

    def until(self, kind: str) -> list[Message]:
        """What is heard, to the first of that type."""
        heard = [self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(self.hear())
        return heard

    def update(self, **session: Any) -> Message:
        """The session as it is then."""
        self.say("session.update", session=session)
        while (told := self.hear())["type"] == f"{ASR}.delta":
            pass
        assert told["type"] == "session.updated", told
        updated: Message = told["session"]
        return updated

    def refused(self) -> Message:
        told = self.hear()
        assert told["type"] == "error", told
        fault: Message = told["error"]
        return fault


@contextmanager
def talk(
    server: Server, query: str = "?intent=transcription", subprotocols: Sequence[str] = (), **headers: str
) -> Iterator[Talk]:
    with connect(
        server.url(f"/v1/realtime{query}"),
        max_size=None,
        open_timeout=PATIENCE,
        subprotocols=[*subprotocols] or None,  # type: ignore[arg-type]
        additional_headers=headers,
    ) as connection:
        yield Talk(connection)
