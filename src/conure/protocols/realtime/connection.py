"""The state of one connection: handles client events and sends server events. Independent of the socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from conure.audio.formats import AudioFormat
from conure.engine.plan import ModelInfo
from conure.errors import BadRequest, ConureError
from conure.protocols.error_codes import error_code_for
from conure.protocols.realtime.items import EventRenderer, Items
from conure.protocols.realtime.messages import BadClientEvent, ClientEvent, IdSource, Message, error_event
from conure.protocols.realtime.nim import NimItems, NimSession, is_nim
from conure.protocols.realtime.responses import Responses, ResponsesOnly, as_responses_error
from conure.protocols.realtime.session import Session, SessionFields
from conure.protocols.realtime.session_schemas import flat_session_body, session_body, session_changes
from conure.protocols.realtime.streams import Streams
from conure.service.access import Caller
from conure.service.events import Cancelled, Event, Failed, Final, Finished, Marker
from conure.service.live_service import LiveService, StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["RealtimeConnection", "Dialect", "ConnectionOver"]

Dialect = Literal["openai", "flat", "nim", "responses"]
"""The current protocol, its first version, that of Riva and NIM, and one that requests text with `response.create`."""

CREATED_EVENTS = {
    "openai": "session.created",
    "flat": "transcription_session.created",
    "nim": "conversation.created",
    "responses": "session.created",
}
RESPONSES_DEFAULTS = {"audio": {"input": {"format": {"rate": 16_000}, "turn_detection": None}}}
SERVICE_RESTART = 1012


class ConnectionOver(Exception):
    """Raised to close the connection with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class RealtimeConnection:
    """`handle_event` and `send_events` run in separate tasks and raise ConnectionOver. `send` sends one message."""

    def __init__(
        self, live: LiveService, caller: Caller, dialect: Dialect, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self._live, self._dialect, self._send = live, dialect, send
        self._ids = IdSource()
        self._streams = Streams(live, caller)
        self._responses, self._nim = Responses(), NimItems(self._ids)
        self._renderer: EventRenderer = Items(self._ids, is_flat=dialect == "flat")
        self._session: SessionFields = Session()
        if dialect == "nim":
            self._session, self._renderer = NimSession(), self._nim
        elif dialect == "responses":
            self._session, self._renderer = Session().updated(RESPONSES_DEFAULTS), ResponsesOnly()
        self._request, self._audio = StreamRequest(), AudioFormat()
        """Settings for the next stream."""
        self._opened_with: tuple[StreamRequest, AudioFormat] | None = None
        """Settings of the last opened stream."""
        self._uncommitted_bytes = self._unanswered_bytes = 0
        """Bytes of audio since the last commit, and since the last response."""
        self._commands: dict[str, Callable[[ClientEvent], Awaitable[None]]] = {
            "session.update": self._update,
            "session.create": self._update,
            "transcription_session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "input_audio_buffer.done": self._done,
            "response.create": self._respond,
            "response.cancel": self._cancel,
        }

    def configure(self, changes: Iterable[dict[str, Any]]) -> None:
        """Applies the session changes given at connect time. Raises BadRequest."""
        session = self._session
        for change in changes:
            session = session.updated(change if self._dialect == "nim" else session_changes(change))
        self._accept(session)

    async def send_greeting(self) -> None:
        message: Message = {"type": CREATED_EVENTS[self._dialect]}
        if self._dialect == "nim":
            conversation_id = self._ids.session.replace("sess", "conv")
            await self.send_message(
                message | {"conversation": {"id": conversation_id, "object": "realtime.conversation"}}
            )
        else:
            session_id = {"id": self._ids.session} if self._dialect == "responses" else {}
            await self.send_message(message | session_id | {"session": self._session_body(self._dialect == "flat")})

    async def handle_event(self, event: ClientEvent) -> None:
        try:
            command = self._commands.get(event.type)
            if command is None:
                supported = f"supported: {', '.join(self._commands)}"
                raise BadClientEvent("unknown_event", f"unsupported event type {event.type!r}", supported, "type")
            await command(event)
        except BadRequest as error:
            await self.send_error(error, event.event_id)

    async def send_error(self, error: ConureError | Failed, event_id: str | None = None) -> None:
        message = error_event(error, event_id)
        await self.send_message(as_responses_error(message) if self._dialect == "responses" else message)

    async def send_message(self, message: Message) -> None:
        await self._send({"type": message["type"], "event_id": self._ids.event()} | message)

    def disconnect(self, failure: Failed | None = None) -> None:
        self._streams.disconnect(failure)

    async def _update(self, event: ClientEvent) -> None:
        changes = event.session or {}
        if self._dialect == "openai" and is_nim(changes) and not self._streams.is_open:
            self._dialect, self._session, self._renderer = "nim", NimSession(), self._nim
        self._accept(self._session.updated(changes if self._dialect == "nim" else session_changes(changes)))
        await self._streams.configure(self._request.endpointing)
        is_flat = event.type.startswith("transcription_session")
        type_ = "transcription_session.updated" if is_flat else "session.updated"
        await self.send_message({"type": type_, "session": self._session_body(is_flat or self._dialect == "flat")})

    def _session_body(self, is_flat: bool) -> Message:
        if isinstance(self._session, NimSession):
            return {"id": self._ids.session} | self._session.fields
        return (flat_session_body if is_flat else session_body)(self._session.common, self._ids.session)

    def _accept(self, session: SessionFields) -> None:
        """Applies all settings or none. New endpointing also applies to the open stream."""
        common, audio = session.common, session.audio(b"")
        request = common.stream_request(self._find_model(common.input.transcription.model or None))
        endpointing = session.endpointing(self._live.resolve_options(request).has_end_token)
        if self._uncommitted_bytes and self._client_commits and self._opened_with and audio != self._opened_with[1]:
            hint = "commit or clear it first"
            raise BadClientEvent("audio_format_in_use", "uncommitted audio has another format", hint)
        self._session, self._audio, self._request = session, audio, replace(request, endpointing=endpointing)

    def _find_model(self, name: str | None) -> ModelInfo:
        """In the NIM dialect an unknown model name selects the default, as clients send NVIDIA's names."""
        models = self._live.models
        return models.find_live_model(name if self._dialect != "nim" or (name and models.is_known(name)) else None)

    @property
    def _client_commits(self) -> bool:
        return self._session.common.input.turn_detection is None

    async def _append(self, event: ClientEvent) -> None:
        audio = event.audio if event.audio is not None else event.audio_base64
        if audio is None:
            raise BadClientEvent(
                "missing_required_parameter", "the message has no audio", "send base64 as `audio`", "audio"
            )
        await self._push_audio(audio)
        if event.runtime_config and str(event.runtime_config.get("force_eou")).lower() == "true":
            await self._streams.finalize("turn")

    async def _push_audio(self, audio: bytes) -> None:
        if self._streams.is_open and self._needs_other_stream:
            await self._end_stream()
        if not self._streams.is_open:
            await self._open(audio)
        self._uncommitted_bytes += len(audio)
        self._unanswered_bytes += len(audio)
        await self._streams.push_audio(audio)

    async def _end_stream(self) -> None:
        """Ends the open stream so that another can be opened, unless it holds uncommitted audio of the client."""
        if not self._client_commits:
            await self._streams.finish()
        elif not self._uncommitted_bytes:
            await self._streams.discard()

    @property
    def _needs_other_stream(self) -> bool:
        """Whether the session settings differ from those of the open stream."""
        return self._opened_with != (replace(self._request, endpointing=Endpointing()), self._audio)

    async def _open(self, head: bytes) -> None:
        try:
            await self._streams.open(self._request, self._session.audio(head))
        except ConureError as error:
            await self.send_error(error)
            raise ConnectionOver(error_code_for(error).close) from None
        self._opened_with = replace(self._request, endpointing=Endpointing()), self._audio
        self._uncommitted_bytes = 0

    async def _commit(self, event: ClientEvent) -> None:
        if self._dialect == "nim":
            await self.send_message(self._nim.render_receipt())
            return
        if not self._uncommitted_bytes:
            message = "the buffer is empty: 0 ms of audio to commit"
            raise BadClientEvent("input_audio_buffer_commit_empty", message, "append audio first")
        self._uncommitted_bytes = 0
        await self._streams.finalize("commit")

    async def _clear(self, event: ClientEvent) -> None:
        await self._streams.discard()
        self._uncommitted_bytes = self._unanswered_bytes = 0
        self._responses.clear()
        await self.send_message({"type": "input_audio_buffer.cleared"})

    async def _done(self, event: ClientEvent) -> None:
        self._nim.is_done = self._dialect == "nim"
        if self._streams.is_open:
            await self._streams.finish()
        else:
            await self._send_all(self._renderer.render_end(0.0))

    async def _respond(self, event: ClientEvent) -> None:
        if not self._unanswered_bytes:
            raise BadClientEvent("no_audio", "there is no audio to transcribe", "append audio first")
        self._uncommitted_bytes = self._unanswered_bytes = 0
        self._responses.request()
        if self._streams.is_open:
            await self._streams.finalize("response")
        else:
            await self._send_all(self._responses.render_response())

    async def _cancel(self, event: ClientEvent) -> None:
        self._responses.cancel()
        await self.send_message({"type": "response.cancelled"})

    async def send_events(self) -> None:
        async for event in self._streams.events():
            await self._send_all(self._render(event))
            if isinstance(event, Failed):
                await self.send_error(event)
                raise ConnectionOver(error_code_for(event).close)
            if isinstance(event, Cancelled) and not self._streams.is_discarded:
                raise ConnectionOver(SERVICE_RESTART)

    def _render(self, event: Event) -> Iterator[Message]:
        match event:
            case Marker():
                request = self._streams.resolve(event)
                yield from self._renderer.render_answer(request)
                if request.kind == "response":
                    yield from self._responses.render_response()
            case Finished() | Cancelled():
                yield from self._renderer.render_end(self._streams.seconds)
            case _:
                if isinstance(event, Final):
                    self._responses.add_final(event)
                yield from self._renderer.render_event(event, self._session, self._streams.tokenizer)

    async def _send_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            await self.send_message(message)
