"""`StreamingRecognize`: live audio and what is heard of it.

    streaming_config, audio, audio ... runtime_config {"force_eou": "true"} ... ──> streams of the service ──> results

A stream is opened with the first audio, whose first bytes tell what it is; what is wrong with the configuration is told
before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from conure.errors import BadRequest, ConureError
from conure.protocols.riva.options import HEAD, audio_of, options_of
from conure.protocols.riva.results import Results
from conure.protocols.riva.riva_asr_pb2 import RecognitionConfig, StreamingRecognizeRequest, StreamingRecognizeResponse
from conure.protocols.riva.rpc import Context, parsed, refuse, response_metadata
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.channel_streams import ChannelStreams
from conure.service.events import TERMINAL_EVENTS, Cancelled, Event, Failed
from conure.service.languages import check_language, only_language

__all__ = ["stream"]

FORCE = "force_eou"
PIECE = 2**20
"""Bytes of audio that are worked in at once, however long a message is."""
STOPPED = Failed("server_stopped", "the server has stopped", "connect again", 5.0)


async def stream(behind: Services, requests: AsyncIterator[bytes], context: Context, caller: Caller) -> None:
    """Raises ConureError."""
    first = await anext(aiter(requests), None)
    request = parsed(StreamingRecognizeRequest, first or b"")
    if not request.HasField("streaming_config"):
        raise BadRequest("the first message has no streaming_config", "send it alone, and then audio")
    conversation = _Conversation(behind, requests, context, caller, request)
    await context.send_initial_metadata(response_metadata(ignored=conversation.options.ignored))
    await conversation.run()


class _Conversation:
    def __init__(
        self,
        behind: Services,
        requests: AsyncIterator[bytes],
        context: Context,
        caller: Caller,
        first: StreamingRecognizeRequest,
    ) -> None:
        models = behind.live.models
        self.options = options_of(first.streaming_config.config, models, first.streaming_config.interim_results)
        card = models.find_live_model(self.options.model)
        check_language(card.name, self.options.language, card.languages, card.prompt_ids)
        audio_of(first.streaming_config.config)
        self._config: RecognitionConfig = first.streaming_config.config
        self._behind, self._requests, self._context, self._caller = behind, requests, context, caller
        self._id, self._runtime = first.id, dict(first.runtime_config)
        self._head = b""
        """Audio before the streams are open."""
        self._streams: ChannelStreams | None = None
        self._opened = asyncio.Event()
        """Also where nothing will be."""
        self._forced = 0
        self._ignored: set[str] = set()
        language = only_language(card.languages)
        self._results = [Results(self.options, channel + 1, language) for channel in range(self.options.channels)]

    async def run(self) -> None:
        """To the last result. Raises ConureError."""
        ends: list[Event | ConureError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                ends += await self._tell(reading)
                reading.cancel()
        except* ConureError as group:
            ends += [error for error in group.exceptions if isinstance(error, ConureError)]
        except* ClientTooSlow:
            ends.append(CLIENT_TOO_SLOW)
        finally:
            if self._streams:
                self._streams.cancel()
        for end in ends:
            if isinstance(end, ConureError):
                raise end
            if isinstance(end, Failed | Cancelled):
                await refuse(self._context, end if isinstance(end, Failed) else STOPPED)
        problems = self._streams.problems if self._streams else ()
        self._context.set_trailing_metadata(response_metadata(ignored=sorted(self._ignored), problems=problems))

    async def _read(self) -> None:
        await self._force(self._runtime)
        async for message in self._requests:
            request = parsed(StreamingRecognizeRequest, message)
            if request.HasField("streaming_config"):
                raise BadRequest("a second streaming_config", "open another stream")
            if request.HasField("id"):
                self._id = request.id
            if request.audio_content:
                await self._feed(request.audio_content)
            await self._force(dict(request.runtime_config))
        if self._head:
            await self._open()
        if self._streams:
            await self._streams.close()
        self._opened.set()

    async def _feed(self, data: bytes) -> None:
        if self._streams is None:
            self._head, data = self._head + data[:PIECE], data[PIECE:]
            if len(self._head) < HEAD:
                return
            await self._open()
        assert self._streams
        for begin in range(0, len(data), PIECE):
            await self._streams.push_audio(data[begin : begin + PIECE])

    async def _open(self) -> ChannelStreams:
        audio = audio_of(self._config, self._head)
        channels = self.options.channels
        self._streams = await ChannelStreams.open(
            self._behind.live, self.options.stream_request, audio, self._caller, channels
        )
        self._opened.set()
        await self._streams.push_audio(self._head)
        self._head = b""
        return self._streams

    async def _force(self, config: dict[str, str]) -> None:
        if config.pop(FORCE, "").lower() in ("true", "1"):
            self._forced += 1
            await (self._streams or await self._open()).finalize(self._forced)
        self._ignored |= {f"runtime_config.{name}" for name in config}

    async def _tell(self, reading: asyncio.Task[None]) -> list[Event]:
        """How its streams ended. Where one fails nothing more is read, and the others end with what they have."""
        await self._opened.wait()
        ends: list[Event] = []
        if self._streams is None:
            return ends
        async for channel, event in self._streams.events():
            if results := self._results[channel].render(event):
                await with_send_timeout(self._context.write(StreamingRecognizeResponse(results=results, id=self._id)))
            if isinstance(event, TERMINAL_EVENTS):
                ends.append(event)
            if isinstance(event, Failed | Cancelled) and not self._streams.is_closing:
                reading.cancel()
                await asyncio.wait([reading])
                await self._streams.close()
        return ends
