"""One transcription, from `audio-start` to the transcript."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from conure.errors import UnsupportedLanguage
from conure.protocols.append_only_text import AppendOnlyText
from conure.service.events import Failed, Final, Finished, Partial
from conure.service.languages import check_language, only_language
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.service.model_directory import ModelDirectory
from conure.vad.endpointing import Endpointing

__all__ = ["WyomingTranscription", "stream_request"]

CLIENT_ENDPOINTING = Endpointing(silence=None, end_token=None, blanks=None, longest=120.0)
"""The client ends utterances with `audio-stop`. Very long ones are divided and joined again: the cost of an utterance
grows with its length, and after an engine crash at most 120 s of audio are replayed."""

SendEvent = Callable[[str, dict[str, Any]], Awaitable[None]]


class WyomingTranscription:
    """The transcription of an open stream."""

    def __init__(self, live: LiveService, stream: LiveStream, send_event: SendEvent) -> None:
        self.audio = stream.audio
        self._live, self._stream, self._send_event = live, stream, send_event
        self._reader = live.attach(stream)
        language = stream.options.language or only_language(stream.options.model.languages)
        self._language = {"language": language} if language else {}
        self._texts: list[str] = []
        """Texts of finished utterances."""
        self._utterance_text = AppendOnlyText()

    @property
    def has_backlog(self) -> bool:
        """Whether received audio is not processed yet; the client may wait silently for it."""
        return self._stream.has_backlog

    async def push_audio(self, data: bytes) -> None:
        await self._stream.push_audio(data, self._reader)

    async def end_audio(self) -> None:
        """Ends the audio."""
        await self._stream.close(self._reader)

    def release(self) -> None:
        """Discards the stream; it is not resumable."""
        self._live.discard(self._stream)

    async def send_transcript(self) -> Failed | None:
        """Sends the transcript. Returns the error if the stream fails."""
        await self._send_event("transcript-start", self._language)
        async for event in self._stream.events(self._reader):
            match event:
                case Partial(_, stable):
                    await self._send_stable_text(stable)
                case Final(_, text):
                    await self._send_stable_text(text)
                    self._texts += [text] if text else []
                    self._utterance_text = AppendOnlyText()
                case Finished():
                    await self._send_event("transcript", {"text": " ".join(self._texts)} | self._language)
                    await self._send_event("transcript-stop", {})
                case Failed():
                    return event
        return None

    async def _send_stable_text(self, text: str) -> None:
        is_next = bool(self._texts) and not self._utterance_text.sent
        if new_text := self._utterance_text.append(text):
            await self._send_event("transcript-chunk", {"text": f" {new_text}" if is_next else new_text})


def stream_request(models: ModelDirectory, model: str | None, language: str | None) -> StreamRequest:
    """A language without a model selects the first model that supports it."""
    return StreamRequest(
        model or _model_for_language(models, language), language=language, endpointing=CLIENT_ENDPOINTING
    )


def _model_for_language(models: ModelDirectory, language: str | None) -> str | None:
    for model in models.live_models if language else ():
        try:
            check_language(model.name, language, model.languages, model.prompt_ids)
        except UnsupportedLanguage:
            continue
        return model.name
    return None
