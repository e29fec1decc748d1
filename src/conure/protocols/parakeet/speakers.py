"""Speaker fields of a form. They are validated, although diarization is not supported."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import UploadFile

from conure.errors import BadOption

__all__ = ["ignored_speaker_fields"]

COUNTS = ("num_speakers", "min_speakers", "max_speakers")
TRUE, FALSE = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")

Form = Mapping[str, UploadFile | str]


def ignored_speaker_fields(form: Form) -> list[str]:
    """Returns the names of requested features without effect. Raises BadOption for invalid values."""
    is_diarization_requested = _parse_flag(form, "diarize")
    counts = {name: count for name in COUNTS if (count := _parse_count(form, name)) is not None}
    min_speakers, max_speakers = counts.get("min_speakers"), counts.get("max_speakers")
    if "num_speakers" in counts and len(counts) > 1:
        raise BadOption("num_speakers cannot be combined with min_speakers or max_speakers")
    if min_speakers is not None and max_speakers is not None and min_speakers > max_speakers:
        raise BadOption(f"min_speakers ({min_speakers}) cannot exceed max_speakers ({max_speakers})")
    return (["diarize"] if is_diarization_requested else []) + list(counts)


def _parse_flag(form: Form, name: str) -> bool:
    value = form.get(name, "false")
    if not isinstance(value, str) or value.lower() not in TRUE + FALSE:
        raise BadOption(f"{name} is {value!r}", "send true or false")
    return value.lower() in TRUE


def _parse_count(form: Form, name: str) -> int | None:
    value = form.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10 and int(value) > 0:
        return int(value)
    raise BadOption(f"{name} is {value!r}", "send an integer greater than 0")
