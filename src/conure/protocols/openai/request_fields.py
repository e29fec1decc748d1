"""What a client asks of a transcription: OpenAI's fields, checked, and which of them have no effect here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import FormData

from conure.engine.plan import ModelInfo
from conure.protocols.openai.errors import BadField
from conure.protocols.openai.form_fields import FILE, parse_fields
from conure.safe_text import header_names
from conure.service.languages import check_language

__all__ = ["ResponseFormat", "TranscriptionFields", "fields_from_form", "form_schema", "ignored_header", "language_of"]

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
LISTS = (
    *("languages", "keywords", "include", "timestamp_granularities"),
    *("known_speaker_names", "known_speaker_references"),
)
AUTO = "auto"


class ServerVad(BaseModel):
    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(300, ge=0)
    silence_duration_ms: int = Field(200, ge=0)
    threshold: float = Field(0.5, ge=0, le=1)


Chunking = Annotated[
    Literal["auto"] | ServerVad | None,
    WithJsonSchema({"anyOf": [{"type": "string", "const": AUTO}, ServerVad.model_json_schema()]}),
]


class TranscriptionFields(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    model: str = ""
    """A model of `/v1/models`; without it the server's default. Names of OpenAI's models mean the default, too."""
    language: str = ""
    """The language spoken, in ISO 639-1; without it, or with `auto`, the model detects or assumes one."""
    languages: list[str] = []
    """Languages that may be spoken. One is as good as `language`; several are checked and have no effect."""
    response_format: ResponseFormat = "json"
    """`diarized_json` is refused: no model here tells speakers apart."""
    track: int | None = Field(None, ge=1)
    """Ours: which of several audio tracks, from 1; without it the default one among those with sound."""
    stream: bool = False
    """Server-sent events with the text as it is transcribed; for `json` and `text`."""
    timestamp_granularities: list[Literal["word", "segment"]] = []
    """For `verbose_json` alone, which has segments if not told otherwise."""
    include: list[Literal["logprobs"]] = []
    """For `json` alone: the log-probability of each token."""
    chunking_strategy: Chunking = None
    """Recordings are always cut where nobody speaks; settings of one's own have no effect."""
    temperature: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    """Has no effect: the most probable token is always taken."""
    prompt: str = ""
    """Has no effect."""
    keywords: list[str] = []
    """Has no effect."""
    known_speaker_names: list[str] = []
    """Refused: no model here tells speakers apart."""
    known_speaker_references: list[str] = []
    """Refused, too."""

    def without_effect(self) -> list[str]:
        """Names of the fields that ask for what is not done."""
        tells = {
            "prompt": self.prompt,
            "keywords": self.keywords,
            "temperature": self.temperature,
            "languages": not self.language and len(self.languages) > 1,
            "chunking_strategy": isinstance(self.chunking_strategy, ServerVad),
        }
        return [name for name, asks in tells.items() if asks]


def fields_from_form(form: FormData) -> tuple[TranscriptionFields, list[str]]:
    """What is asked, and the names of all fields that have no effect. Raises BadField."""
    values, unknown = parse_fields(form, TranscriptionFields.model_fields, LISTS)
    try:
        asked = TranscriptionFields.model_validate(values)
    except ValidationError as error:
        raise _bad_value(error, values) from None
    _check(asked)
    return asked, asked.without_effect() + unknown


def language_of(asked: TranscriptionFields, card: ModelInfo) -> str | None:
    """None where the model is to find out. Raises UnsupportedLanguage."""
    named = [check_language(card.name, language, card.languages, card.prompt_ids) for language in asked.languages]
    if asked.language:
        return check_language(card.name, asked.language, card.languages, card.prompt_ids)
    return named[0] if len(named) == 1 else None


def ignored_header(names: list[str]) -> dict[str, str]:
    """`Conure-Ignored`, where there is something to name. Names come from the client, who may write anything."""
    told = header_names(names)
    return {"Conure-Ignored": told} if told else {}


def form_schema() -> dict[str, Any]:
    """JSON schema of the form, for the OpenAPI document."""
    schema = TranscriptionFields.model_json_schema()
    recording = {"type": "string", "format": "binary", "description": "The recording, in any container."}
    return schema | {"properties": {FILE: recording} | schema["properties"], "required": [FILE]}


def _bad_value(error: ValidationError, values: dict[str, Any]) -> BadField:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    field = str(faults[0]["loc"][0])
    reasons = dict.fromkeys(fault["msg"][:1].lower() + fault["msg"][1:] for fault in faults if fault["loc"][0] == field)
    return BadField(field, f"{field} is {str(values[field])[:80]!r}", " or ".join(reasons))


def _check(asked: TranscriptionFields) -> None:
    """What does not go together, and what nobody here can do."""
    if asked.known_speaker_names or asked.known_speaker_references:
        field = "known_speaker_names" if asked.known_speaker_names else "known_speaker_references"
        raise BadField(field, "no model here tells speakers apart", f"leave {field} out")
    if asked.response_format == "diarized_json":
        raise BadField(
            "response_format", "diarized_json needs a model that tells speakers apart", "ask for verbose_json"
        )
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        told = f"response_format is {asked.response_format}, and has no times"
        raise BadField("timestamp_granularities", told, "ask for verbose_json")
    if asked.include and asked.response_format != "json":
        raise BadField("include", f"response_format is {asked.response_format}, and has no logprobs", "ask for json")
    if asked.stream and asked.response_format not in ("json", "text"):
        told = f"{asked.response_format} is made of the whole recording, and cannot be streamed"
        raise BadField("response_format", told, "ask for json or text, or without stream")
