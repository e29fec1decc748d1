"""From `audio-start` to the transcript: what is heard, and what is told of it meanwhile."""

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

__all__ = ["WyomingTranscription", "wanted"]

UNTIL_IT_STOPS = Endpointing(silence=None, end_token=None, blanks=None, longest=120.0)
"""The client knows when its speaker has finished. What is very long is cut and joined again: an utterance costs more
with every word, and no more of it would survive a crash of the engine."""

Say = Callable[[str, dict[str, Any]], Awaitable[None]]


class WyomingTranscription:
    """Of a stream that is open."""

    def __init__(self, live: LiveService, stream: LiveStream, say: Say) -> None:
        self.audio = stream.audio
        self._live, self._stream, self._say = live, stream, say
        self._reader = live.attach(stream)
        language = stream.options.language or only_language(stream.options.model.languages)
        self._language = {"language": language} if language else {}
        self._said: list[str] = []
        """Utterances that are over."""
        self._growing = AppendOnlyText()

    @property
    def has_backlog(self) -> bool:
        """Audio waits that could be heard: the client need say nothing meanwhile."""
        return self._stream.has_backlog

    async def push_audio(self, data: bytes) -> None:
        await self._stream.push_audio(data, self._reader)

    async def end_audio(self) -> None:
        """That was all."""
        await self._stream.close(self._reader)

    def release(self) -> None:
        """Nobody wants the rest."""
        self._live.discard(self._stream)

    async def send_transcript(self) -> Failed | None:
        """To the end of the transcript; or why there is none."""
        await self._say("transcript-start", self._language)
        async for event in self._stream.events(self._reader):
            match event:
                case Partial(_, stable):
                    await self._tell_more(stable)
                case Final(_, text):
                    await self._tell_more(text)
                    self._said += [text] if text else []
                    self._growing = AppendOnlyText()
                case Finished():
                    await self._say("transcript", {"text": " ".join(self._said)} | self._language)
                    await self._say("transcript-stop", {})
                case Failed():
                    return event
        return None

    async def _tell_more(self, text: str) -> None:
        is_next = bool(self._said) and not self._growing.sent
        if more := self._growing.advance(text):
            await self._say("transcript-chunk", {"text": f" {more}" if is_next else more})


def wanted(models: ModelDirectory, model: str | None, language: str | None) -> StreamRequest:
    """Who names a language alone gets the first model that knows it."""
    return StreamRequest(model or _knowing(models, language), language=language, endpointing=UNTIL_IT_STOPS)


def _knowing(models: ModelDirectory, language: str | None) -> str | None:
    for card in models.live_models if language else ():
        try:
            check_language(card.name, language, card.languages, card.prompt_ids)
        except UnsupportedLanguage:
            continue
        return card.name
    return None
