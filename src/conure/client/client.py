"""Entry point of the client: live streams and recordings."""

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
    """Client of the server at a URL: ws://, wss://, http:// or https://. Keeps no connection open itself."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        keepalive: float = 10.0,
    ) -> None:
        """`key`: API key, sent in the `Authorization` header.

        `open_timeout`: connection timeout in seconds. `keepalive`: seconds between pings of a stream, and the timeout
        of their pongs. Raises BadInput."""
        authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._address = Address(url, {**authorization, **(headers or {})}, open_timeout, keepalive)

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
        """A live stream; `async with` opens it. Parameters that are None have the server's defaults.

        Entering raises CannotConnect, ServerError (ServerBusy if the server is at capacity) or BadMessage.
        """
        if encoding not in get_args(Encoding):
            raise BadInput(f"unknown encoding {encoding!r}", f"use one of {', '.join(get_args(Encoding))}")
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
        """Transcribes a recording, given as a path or as its bytes. `name` is used for it in error messages.

        `track`: number of the audio track, from 1; the default is the container's default track among those with sound.

        Raises BadInput, CannotConnect, ServerError (ServerBusy) or BadMessage.
        """
        if name is None and not isinstance(source, bytes):
            name = PurePath(source).name
        number = None if track is None else str(track)
        params = {"model": model, "language": language, "track": number, "name": name and printable_name(name)}
        return await post_recording(
            self._address, source, {key: value for key, value in params.items() if value is not None}
        )
