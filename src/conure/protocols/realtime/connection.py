"""One connection, from what its client says to what it is told. Knows nothing of sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from conure.audio.formats import AudioFormat
from conure.engine.plan import ModelInfo
from conure.errors import BadRequest, ConureError
from conure.protocols.error_codes import error_code_for
from conure.protocols.realtime.items import EventRenderer, Items
from conure.protocols.realtime.messages import BadClientEvent, ClientEvent, IdSource, Message, error
from conure.protocols.realtime.nim import NimItems, NimSession, is_nim
from conure.protocols.realtime.responses import Responses, ResponsesOnly, as_responses_error
from conure.protocols.realtime.session import Session, SessionFields
from conure.protocols.realtime.session_schemas import flat_session_body, session_changes, shape
from conure.protocols.realtime.streams import Streams
from conure.service.access import Caller
from conure.service.events import Cancelled, Event, Failed, Final, Finished, Marker
from conure.service.live_service import LiveService, StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["RealtimeConnection", "Dialect", "ConnectionOver"]

Dialect = Literal["openai", "flat", "nim", "responses"]
"""The protocol as it is, its first version, that of Riva and NIM, and one that asks with `response.create`."""

CREATED = {
    "openai": "session.created",
    "flat": "transcription_session.created",
    "nim": "conversation.created",
    "responses": "session.created",
}
OLD_DEFAULTS = {"audio": {"input": {"format": {"rate": 16_000}, "turn_detection": None}}}
STOPPED = 1012


class ConnectionOver(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class RealtimeConnection:
    """`read` and `tell` are for a task each, and raise Over. `say` is how the client is told."""

    def __init__(
        self, live: LiveService, caller: Caller, dialect: Dialect, say: Callable[[Message], Awaitable[None]]
    ) -> None:
        self._live, self._dialect, self._send = live, dialect, say
        self._numbers = IdSource()
        self._streams = Streams(live, caller)
        self._responses, self._nim = Responses(), NimItems(self._numbers)
        self._teller: EventRenderer = Items(self._numbers, is_flat=dialect == "flat")
        self._session: SessionFields = Session()
        if dialect == "nim":
            self._session, self._teller = NimSession(), self._nim
        elif dialect == "responses":
            self._session, self._teller = Session().updated(OLD_DEFAULTS), ResponsesOnly()
        self._wanted, self._audio = StreamRequest(), AudioFormat()
        """Of a stream that would be opened now."""
        self._opened: tuple[StreamRequest, AudioFormat] | None = None
        """The same of the one that was."""
        self._uncommitted = self._unanswered = 0
        """Bytes since the last commit, and since the last response."""
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
        """With what was asked for on the way in. Raises BadRequest."""
        asked = self._session
        for change in changes:
            asked = asked.updated(change if self._dialect == "nim" else session_changes(change))
        self._accept(asked)

    async def send_greeting(self) -> None:
        told: Message = {"type": CREATED[self._dialect]}
        if self._dialect == "nim":
            number = self._numbers.session.replace("sess", "conv")
            await self.send_message(told | {"conversation": {"id": number, "object": "realtime.conversation"}})
        else:
            old = {"id": self._numbers.session} if self._dialect == "responses" else {}
            await self.send_message(told | old | {"session": self._shape(self._dialect == "flat")})

    async def handle_event(self, said: ClientEvent) -> None:
        try:
            command = self._commands.get(said.type)
            if command is None:
                known = f"known are: {', '.join(self._commands)}"
                raise BadClientEvent("unknown_event", f"{said.type!r} is nothing that this server does", known, "type")
            await command(said)
        except BadRequest as fault:
            await self.send_error(fault, said.event_id)

    async def send_error(self, fault: ConureError | Failed, event_id: str | None = None) -> None:
        told = error(fault, event_id)
        await self.send_message(as_responses_error(told) if self._dialect == "responses" else told)

    async def send_message(self, message: Message) -> None:
        await self._send({"type": message["type"], "event_id": self._numbers.event()} | message)

    def disconnect(self, why: Failed | None = None) -> None:
        self._streams.disconnect(why)

    # What the client says.

    async def _update(self, said: ClientEvent) -> None:
        changes = said.session or {}
        if self._dialect == "openai" and is_nim(changes) and not self._streams.is_open:
            self._dialect, self._session, self._teller = "nim", NimSession(), self._nim
        self._accept(self._session.updated(changes if self._dialect == "nim" else session_changes(changes)))
        await self._streams.configure(self._wanted.endpointing)
        is_flat = said.type.startswith("transcription_session")
        kind = "transcription_session.updated" if is_flat else "session.updated"
        await self.send_message({"type": kind, "session": self._shape(is_flat or self._dialect == "flat")})

    def _shape(self, is_flat: bool) -> Message:
        if isinstance(self._session, NimSession):
            return {"id": self._numbers.session} | self._session.shape
        return (flat_session_body if is_flat else shape)(self._session.common, self._numbers.session)

    def _accept(self, asked: SessionFields) -> None:
        """As a whole, or not at all. A stream that is open ends turns as it is asked to from now on."""
        common, audio = asked.common, asked.audio(b"")
        wanted = common.stream_request(self._card(common.input.transcription.model or None))
        endpointing = asked.endpointing(self._live.resolve_options(wanted).has_end_token)
        if self._uncommitted and self._client_commits and self._opened and audio != self._opened[1]:
            hint = "commit it or clear it first"
            raise BadClientEvent("audio_format_in_use", "there is audio in another format that is not committed", hint)
        self._session, self._audio, self._wanted = asked, audio, replace(wanted, endpointing=endpointing)

    def _card(self, name: str | None) -> ModelInfo:
        """Clients of Riva name models as theirs are named: what is none of ours stands for the default."""
        models = self._live.models
        return models.find_live_model(name if self._dialect != "nim" or (name and models.is_known(name)) else None)

    @property
    def _client_commits(self) -> bool:
        return self._session.common.input.turn_detection is None

    async def _append(self, said: ClientEvent) -> None:
        audio = said.audio if said.audio is not None else said.audio_base64
        if audio is None:
            raise BadClientEvent(
                "missing_required_parameter", "there is no audio in it", "send base64 as `audio`", "audio"
            )
        await self._hear(audio)
        if said.runtime_config and str(said.runtime_config.get("force_eou")).lower() == "true":
            await self._streams.finalize("turn")

    async def _hear(self, audio: bytes) -> None:
        if self._streams.is_open and self._is_other:
            await self._make_way()
        if not self._streams.is_open:
            await self._open(audio)
        self._uncommitted += len(audio)
        self._unanswered += len(audio)
        await self._streams.feed(audio)

    async def _make_way(self) -> None:
        """For another stream. Where the client ends turns, what it has not committed yet goes on in this one."""
        if not self._client_commits:
            await self._streams.finish()
        elif not self._uncommitted:
            await self._streams.discard()

    @property
    def _is_other(self) -> bool:
        """The session asks for another stream than the one that is open."""
        return self._opened != (replace(self._wanted, endpointing=Endpointing()), self._audio)

    async def _open(self, head: bytes) -> None:
        try:
            await self._streams.open(self._wanted, self._session.audio(head))
        except ConureError as fault:
            await self.send_error(fault)
            raise ConnectionOver(error_code_for(fault).close) from None
        self._opened = replace(self._wanted, endpointing=Endpointing()), self._audio
        self._uncommitted = 0

    async def _commit(self, said: ClientEvent) -> None:
        if self._dialect == "nim":
            await self.send_message(self._nim.render_receipt())
            return
        if not self._uncommitted:
            fault = "the buffer has 0 ms of audio: there is nothing to commit"
            raise BadClientEvent("input_audio_buffer_commit_empty", fault, "append audio first")
        self._uncommitted = 0
        await self._streams.finalize("commit")

    async def _clear(self, said: ClientEvent) -> None:
        await self._streams.discard()
        self._uncommitted = self._unanswered = 0
        self._responses.forget()
        await self.send_message({"type": "input_audio_buffer.cleared"})

    async def _done(self, said: ClientEvent) -> None:
        self._nim.is_done = self._dialect == "nim"
        if self._streams.is_open:
            await self._streams.finish()
        else:
            await self._say_all(self._teller.render_end(0.0))

    async def _respond(self, said: ClientEvent) -> None:
        if not self._unanswered:
            raise BadClientEvent("no_audio", "there is no audio to answer to", "append some first")
        self._uncommitted = self._unanswered = 0
        self._responses.ask()
        if self._streams.is_open:
            await self._streams.finalize("response")
        else:
            await self._say_all(self._responses.answer())

    async def _cancel(self, said: ClientEvent) -> None:
        self._responses.cancel()
        await self.send_message({"type": "response.cancelled"})

    # What it is told.

    async def send_events(self) -> None:
        async for event in self._streams.events():
            await self._say_all(self._told(event))
            if isinstance(event, Failed):
                await self.send_error(event)
                raise ConnectionOver(error_code_for(event).close)
            if isinstance(event, Cancelled) and not self._streams.is_dropped:
                raise ConnectionOver(STOPPED)

    def _told(self, event: Event) -> Iterator[Message]:
        match event:
            case Marker():
                request = self._streams.answered(event)
                yield from self._teller.render_answer(request)
                if request.kind == "response":
                    yield from self._responses.answer()
            case Finished() | Cancelled():
                yield from self._teller.render_end(self._streams.seconds)
            case _:
                if isinstance(event, Final):
                    self._responses.hear(event)
                yield from self._teller.render_event(event, self._session, self._streams.tokenizer)

    async def _say_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            await self.send_message(message)
