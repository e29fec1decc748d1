"""`StreamingRecognize`: transcription of live audio.

    streaming_config, audio, audio ... runtime_config {"force_eou": "true"} ... ──> streams of the service ──> results

A stream is opened with the first audio, as its first bytes may identify a container. The configuration is validated
before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from conure.errors import BadRequest, ConureError
from conure.protocols.riva.options import HEAD_BYTES, parse_audio, parse_options
from conure.protocols.riva.results import Results
from conure.protocols.riva.riva_asr_pb2 import RecognitionConfig, StreamingRecognizeRequest, StreamingRecognizeResponse
from conure.protocols.riva.rpc import Context, abort_with_error, parse_request, response_metadata
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.channel_streams import ChannelStreams
from conure.service.events import TERMINAL_EVENTS, Cancelled, Event, Failed
from conure.service.languages import check_language, only_language

__all__ = ["stream"]

FORCE_END_OF_UTTERANCE = "force_eou"
MAX_PUSH_BYTES = 2**20
"""Bytes of audio that are pushed at once; longer messages are divided."""
SERVER_STOPPED = Failed("server_stopped", "the server has stopped", "connect again", 5.0)


async def stream(services: Services, requests: AsyncIterator[bytes], context: Context, caller: Caller) -> None:
    """Raises ConureError."""
    first_request = await anext(aiter(requests), None)
    request = parse_request(StreamingRecognizeRequest, first_request or b"")
    if not request.HasField("streaming_config"):
        raise BadRequest("the first message has no streaming_config", "send streaming_config first, then audio")
    streaming_call = _StreamingCall(services, requests, context, caller, request)
    await context.send_initial_metadata(response_metadata(ignored=streaming_call.options.ignored))
    await streaming_call.run()


class _StreamingCall:
    def __init__(
        self,
        services: Services,
        requests: AsyncIterator[bytes],
        context: Context,
        caller: Caller,
        first_request: StreamingRecognizeRequest,
    ) -> None:
        models = services.live.models
        self.options = parse_options(
            first_request.streaming_config.config, models, first_request.streaming_config.interim_results
        )
        model = models.find_live_model(self.options.model)
        check_language(model.name, self.options.language, model.languages, model.prompt_ids)
        parse_audio(first_request.streaming_config.config)
        self._config: RecognitionConfig = first_request.streaming_config.config
        self._services, self._requests, self._context, self._caller = services, requests, context, caller
        self._id, self._initial_runtime_config = first_request.id, dict(first_request.runtime_config)
        self._head = b""
        """First bytes of the audio, until the streams are open."""
        self._streams: ChannelStreams | None = None
        self._opened = asyncio.Event()
        """Set when the streams are open, or when the input ended without audio."""
        self._finalize_count = 0
        self._ignored: set[str] = set()
        language = only_language(model.languages)
        self._results = [Results(self.options, channel + 1, language) for channel in range(self.options.channels)]

    async def run(self) -> None:
        """Runs to the last result. Raises ConureError."""
        outcomes: list[Event | ConureError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._receive())
                outcomes += await self._send_results(receiving)
                receiving.cancel()
        except* ConureError as group:
            outcomes += [error for error in group.exceptions if isinstance(error, ConureError)]
        except* ClientTooSlow:
            outcomes.append(CLIENT_TOO_SLOW)
        finally:
            if self._streams:
                self._streams.cancel()
        for outcome in outcomes:
            if isinstance(outcome, ConureError):
                raise outcome
            if isinstance(outcome, Failed | Cancelled):
                await abort_with_error(self._context, outcome if isinstance(outcome, Failed) else SERVER_STOPPED)
        problems = self._streams.problems if self._streams else ()
        self._context.set_trailing_metadata(response_metadata(ignored=sorted(self._ignored), problems=problems))

    async def _receive(self) -> None:
        await self._apply_runtime_config(self._initial_runtime_config)
        async for message in self._requests:
            request = parse_request(StreamingRecognizeRequest, message)
            if request.HasField("streaming_config"):
                raise BadRequest("streaming_config was sent twice", "open another stream")
            if request.HasField("id"):
                self._id = request.id
            if request.audio_content:
                await self._push_audio(request.audio_content)
            await self._apply_runtime_config(dict(request.runtime_config))
        if self._head:
            await self._open()
        if self._streams:
            await self._streams.close()
        self._opened.set()

    async def _push_audio(self, data: bytes) -> None:
        if self._streams is None:
            self._head, data = self._head + data[:MAX_PUSH_BYTES], data[MAX_PUSH_BYTES:]
            if len(self._head) < HEAD_BYTES:
                return
            await self._open()
        assert self._streams
        for start in range(0, len(data), MAX_PUSH_BYTES):
            await self._streams.push_audio(data[start : start + MAX_PUSH_BYTES])

    async def _open(self) -> ChannelStreams:
        audio = parse_audio(self._config, self._head)
        channels = self.options.channels
        self._streams = await ChannelStreams.open(
            self._services.live, self.options.stream_request, audio, self._caller, channels
        )
        self._opened.set()
        await self._streams.push_audio(self._head)
        self._head = b""
        return self._streams

    async def _apply_runtime_config(self, config: dict[str, str]) -> None:
        if config.pop(FORCE_END_OF_UTTERANCE, "").lower() in ("true", "1"):
            self._finalize_count += 1
            await (self._streams or await self._open()).finalize(self._finalize_count)
        self._ignored |= {f"runtime_config.{name}" for name in config}

    async def _send_results(self, receiving: asyncio.Task[None]) -> list[Event]:
        """Returns the terminal events. If one stream fails, input stops and the others finish."""
        await self._opened.wait()
        outcomes: list[Event] = []
        if self._streams is None:
            return outcomes
        async for channel, event in self._streams.events():
            if results := self._results[channel].render(event):
                await with_send_timeout(self._context.write(StreamingRecognizeResponse(results=results, id=self._id)))
            if isinstance(event, TERMINAL_EVENTS):
                outcomes.append(event)
            if isinstance(event, Failed | Cancelled) and not self._streams.is_closing:
                receiving.cancel()
                await asyncio.wait([receiving])
                await self._streams.close()
        return outcomes
