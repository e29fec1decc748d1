"""OpenAI's fields of a transcription request: parsing, validation, and fields without effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import FormData

from conure.engine.plan import ModelInfo
from conure.protocols.openai.errors import BadField
from conure.protocols.openai.form_fields import FILE_FIELD, parse_fields
from conure.safe_text import header_names
from conure.service.languages import check_language

__all__ = [
    "ResponseFormat",
    "TranscriptionFields",
    "fields_from_form",
    "form_schema",
    "ignored_header",
    "requested_language",
]

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
LIST_FIELDS = (
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
    """A model of `/v1/models`; by default the server's default model, which OpenAI's model names also select."""
    language: str = ""
    """The spoken language in ISO 639-1. If omitted or `auto`, the model detects or assumes one."""
    languages: list[str] = []
    """Candidate languages. A single one acts like `language`; several are validated and have no effect."""
    response_format: ResponseFormat = "json"
    """`diarized_json` is rejected: speaker diarization is not supported."""
    track: int | None = Field(None, ge=1)
    """Extension of Conure: the audio track, from 1; by default the default audible track."""
    stream: bool = False
    """Sends the text as server-sent events while it is transcribed; for `json` and `text`."""
    timestamp_granularities: list[Literal["word", "segment"]] = []
    """For `verbose_json` only; the default is segments."""
    include: list[Literal["logprobs"]] = []
    """For `json` only: the log probability of each token."""
    chunking_strategy: Chunking = None
    """Recordings are always split at pauses; `server_vad` settings have no effect."""
    temperature: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    """Has no effect: decoding is greedy."""
    prompt: str = ""
    """Has no effect."""
    keywords: list[str] = []
    """Has no effect."""
    known_speaker_names: list[str] = []
    """Rejected: speaker diarization is not supported."""
    known_speaker_references: list[str] = []
    """Rejected, too."""

    def fields_without_effect(self) -> list[str]:
        """Returns the names of requested features without effect."""
        requested = {
            "prompt": self.prompt,
            "keywords": self.keywords,
            "temperature": self.temperature,
            "languages": not self.language and len(self.languages) > 1,
            "chunking_strategy": isinstance(self.chunking_strategy, ServerVad),
        }
        return [name for name, is_set in requested.items() if is_set]


def fields_from_form(form: FormData) -> tuple[TranscriptionFields, list[str]]:
    """Returns the parsed fields and the names of all fields without effect. Raises BadField."""
    values, unknown = parse_fields(form, TranscriptionFields.model_fields, LIST_FIELDS)
    try:
        fields = TranscriptionFields.model_validate(values)
    except ValidationError as error:
        raise _invalid_value(error, values) from None
    _reject_unsupported(fields)
    return fields, fields.fields_without_effect() + unknown


def requested_language(fields: TranscriptionFields, model: ModelInfo) -> str | None:
    """Returns None if the model detects the language. Raises UnsupportedLanguage."""
    candidates = [
        check_language(model.name, language, model.languages, model.prompt_ids) for language in fields.languages
    ]
    if fields.language:
        return check_language(model.name, fields.language, model.languages, model.prompt_ids)
    return candidates[0] if len(candidates) == 1 else None


def ignored_header(names: list[str]) -> dict[str, str]:
    """Returns the `Conure-Ignored` header if any field is ignored. Names come from the client and are sanitized."""
    value = header_names(names)
    return {"Conure-Ignored": value} if value else {}


def form_schema() -> dict[str, Any]:
    """Returns the JSON schema of the form, for the OpenAPI document."""
    schema = TranscriptionFields.model_json_schema()
    recording = {"type": "string", "format": "binary", "description": "The recording, in any container."}
    return schema | {"properties": {FILE_FIELD: recording} | schema["properties"], "required": [FILE_FIELD]}


def _invalid_value(error: ValidationError, values: dict[str, Any]) -> BadField:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    field = str(errors[0]["loc"][0])
    reasons = dict.fromkeys(item["msg"][:1].lower() + item["msg"][1:] for item in errors if item["loc"][0] == field)
    return BadField(field, f"{field} is {str(values[field])[:80]!r}", " or ".join(reasons))


def _reject_unsupported(fields: TranscriptionFields) -> None:
    """Rejects contradicting fields and unsupported features. Raises BadField."""
    if fields.known_speaker_names or fields.known_speaker_references:
        field = "known_speaker_names" if fields.known_speaker_names else "known_speaker_references"
        raise BadField(field, "speaker diarization is not supported", f"omit {field}")
    if fields.response_format == "diarized_json":
        raise BadField(
            "response_format", "diarized_json requires speaker diarization, which is not supported", "use verbose_json"
        )
    if fields.timestamp_granularities and fields.response_format != "verbose_json":
        message = f"response_format is {fields.response_format} and has no timestamps"
        raise BadField("timestamp_granularities", message, "use verbose_json")
    if fields.include and fields.response_format != "json":
        raise BadField("include", f"response_format is {fields.response_format} and has no logprobs", "use json")
    if fields.stream and fields.response_format not in ("json", "text"):
        message = f"{fields.response_format} requires the whole recording and cannot be streamed"
        raise BadField("response_format", message, "use json or text, or omit stream")
