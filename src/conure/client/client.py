"""The way to a server: live streams and recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import get_args

from conure.client.audio import Encoding
from conure.client.codec import WireFormat
from conure.client.connection import Address
from conure.client.errors import BadInput
from conure.client.protocol import Config, Endpointing, Finals, Hello
from conure.client.recording import Transcript, post_recording, printable_name
from conure.client.stream import Stream

__all__ = ["Client"]


class Client:
    """A server, named by its URL: ws://, wss://, http:// or https://. Holds no connection of its own."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        keepalive: float = 10.0,
    ) -> None:
        """`key`: of the server, where it needs one; it goes into the headers.

        `open_timeout`: seconds until a connection must stand. `keepalive`: seconds between pings of a stream, and
        until one without an answer breaks its connection. Raises BadInput."""
        own = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._address = Address(url, {**own, **(headers or {})}, open_timeout, keepalive)

    def stream(
        self,
        *,
        model: str | None = None,
        latency_ms: int | None = None,
        language: str | None = None,
        endpointing: Endpointing | None = None,
        finals: Finals | None = None,
        sample_rate: int = 16_000,
        encoding: Encoding = "pcm16",
        channels: int = 1,
        partials: bool = True,
        words: bool = True,
        lag: bool = False,
        wire: WireFormat = "binary",
    ) -> Stream:
        """A live stream; `async with` opens it. What is None is as the server has it.

        Entering raises CannotConnect, ServerError (ServerBusy where there is no room) or BadMessage.
        """
        if encoding not in get_args(Encoding):
            raise BadInput(f"no such encoding: {encoding!r}", f"one of {', '.join(get_args(Encoding))}")
        hello = Hello(sample_rate=sample_rate, encoding=encoding, channels=channels)
        config = Config(
            model=model,
            latency_ms=latency_ms,
            language=language,
            endpointing=endpointing,
            finals=finals,
            partials=partials,
            words=words,
            lag=lag,
        )
        return Stream(self._address, hello, config, wire)

    async def transcribe(
        self,
        source: str | Path | bytes,
        *,
        model: str | None = None,
        language: str | None = None,
        track: int | None = None,
        name: str | None = None,
    ) -> Transcript:
        """Transcribe a recording: the path of a file, or what is in it. `name` is what errors call it.

        `track`: which of several audio tracks, from 1; without it the default one among those with sound.

        Raises BadInput, CannotConnect, ServerError (ServerBusy) or BadMessage.
        """
        if name is None and not isinstance(source, bytes):
            name = PurePath(source).name
        number = None if track is None else str(track)
        asked = {"model": model, "language": language, "track": number, "name": name and printable_name(name)}
        return await post_recording(
            self._address, source, {key: value for key, value in asked.items() if value is not None}
        )
