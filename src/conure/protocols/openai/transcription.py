"""A form of OpenAI's to a recording that is transcribed, and to the answer in the format that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import BinaryIO

from fastapi.responses import Response
from starlette.datastructures import FormData

from conure.engine.plan import ModelInfo
from conure.protocols.http.problems_header import problems_header
from conure.protocols.openai.event_stream import EventStream
from conure.protocols.openai.form_fields import uploaded_file
from conure.protocols.openai.request_fields import TranscriptionFields, fields_from_form, ignored_header, language_of
from conure.protocols.openai.transcript_formats import as_json, known_language, plain, transcription, verbose
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.text.tokenizer import Tokenizer
from conure.types import Transcript, Word

__all__ = ["TranscriptionForm", "transcription_form"]


@dataclass(frozen=True)
class TranscriptionForm:
    behind: Services
    caller: Caller
    file: BinaryIO
    asked: TranscriptionFields
    card: ModelInfo
    language: str | None
    headers: dict[str, str]

    async def transcribe(self, heard: Callable[[Word], None] | None = None) -> Transcript:
        return await self.behind.files.transcribe(
            self.file, self.card, self.language, self.caller, heard=heard, track=self.asked.track
        )

    def answer(self, transcript: Transcript) -> Response:
        """Raises BadOption where times are wanted that the model does not give."""
        form, language = self.asked.response_format, known_language(transcript, self.card)
        if form == "json":
            return self._json(as_json(transcription(transcript, language, self._logprobs)))
        if form == "verbose_json":
            return self._json(as_json(verbose(transcript, language, self.asked.timestamp_granularities)))
        headers = self.headers | problems_header(transcript)
        kind = "text/vtt" if form == "vtt" else "text/plain"
        return Response(plain(transcript, form), headers=headers, media_type=kind)

    def stream(self, form: AsyncExitStack) -> EventStream:
        """`form`: what holds the recording, closed at the end."""
        return EventStream(form, self.transcribe, self.card, self._logprobs, self.headers)

    def _json(self, body: str) -> Response:
        return Response(body, headers=self.headers, media_type="application/json")

    @property
    def _logprobs(self) -> Tokenizer | None:
        return self.behind.live.tokenizers.of(self.card) if self.asked.include else None


def transcription_form(form: FormData, behind: Services, caller: Caller) -> TranscriptionForm:
    """Raises BadField, UnknownModel, UnsupportedLanguage, or BadOption for a model that is not for recordings."""
    asked, ignored = fields_from_form(form)
    file = uploaded_file(form)
    card = behind.live.models.find_file_model(asked.model or None)
    return TranscriptionForm(behind, caller, file, asked, card, language_of(asked, card), ignored_header(ignored))
