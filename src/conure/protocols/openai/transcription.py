"""One transcription request: from the parsed form to the response in the requested format."""

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
from conure.protocols.openai.request_fields import (
    TranscriptionFields,
    fields_from_form,
    ignored_header,
    requested_language,
)
from conure.protocols.openai.transcript_formats import as_json, known_language, render_json, render_text, render_verbose
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.text.tokenizer import Tokenizer
from conure.types import Transcript, Word

__all__ = ["TranscriptionRequest", "parse_transcription"]


@dataclass(frozen=True)
class TranscriptionRequest:
    services: Services
    caller: Caller
    file: BinaryIO
    fields: TranscriptionFields
    model: ModelInfo
    language: str | None
    headers: dict[str, str]

    async def transcribe(self, on_word: Callable[[Word], None] | None = None) -> Transcript:
        return await self.services.files.transcribe(
            self.file, self.model, self.language, self.caller, heard=on_word, track=self.fields.track
        )

    def render_response(self, transcript: Transcript) -> Response:
        """Raises BadOption if timestamps are requested and the model gives none."""
        format_, language = self.fields.response_format, known_language(transcript, self.model)
        if format_ == "json":
            return self._json(as_json(render_json(transcript, language, self._tokenizer)))
        if format_ == "verbose_json":
            return self._json(as_json(render_verbose(transcript, language, self.fields.timestamp_granularities)))
        headers = self.headers | problems_header(transcript)
        media_type = "text/vtt" if format_ == "vtt" else "text/plain"
        return Response(render_text(transcript, format_), headers=headers, media_type=media_type)

    def stream(self, resources: AsyncExitStack) -> EventStream:
        """`resources`: holds the uploaded recording; closed when the stream ends."""
        return EventStream(resources, self.transcribe, self.model, self._tokenizer, self.headers)

    def _json(self, body: str) -> Response:
        return Response(body, headers=self.headers, media_type="application/json")

    @property
    def _tokenizer(self) -> Tokenizer | None:
        return self.services.live.tokenizers.of(self.model) if self.fields.include else None


def parse_transcription(form: FormData, services: Services, caller: Caller) -> TranscriptionRequest:
    """Raises BadField, UnknownModel, UnsupportedLanguage, or BadOption for a model without file transcription."""
    fields, ignored = fields_from_form(form)
    file = uploaded_file(form)
    model = services.live.models.find_file_model(fields.model or None)
    return TranscriptionRequest(
        services, caller, file, fields, model, requested_language(fields, model), ignored_header(ignored)
    )
