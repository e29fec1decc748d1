"""What a form says of speakers. It is checked, although there are none yet."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import UploadFile

from conure.errors import BadOption

__all__ = ["ignored_speaker_fields"]

COUNTS = ("num_speakers", "min_speakers", "max_speakers")
YES, NO = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")

Form = Mapping[str, UploadFile | str]


def ignored_speaker_fields(form: Form) -> list[str]:
    """Names of the fields that ask for what is not done. Raises BadOption for values that are none."""
    wanted = _flag(form, "diarize")
    counts = {name: count for name in COUNTS if (count := _count(form, name)) is not None}
    least, most = counts.get("min_speakers"), counts.get("max_speakers")
    if "num_speakers" in counts and len(counts) > 1:
        raise BadOption("num_speakers cannot be combined with min_speakers or max_speakers")
    if least is not None and most is not None and least > most:
        raise BadOption(f"min_speakers ({least}) cannot exceed max_speakers ({most})")
    return (["diarize"] if wanted else []) + list(counts)


def _flag(form: Form, name: str) -> bool:
    said = form.get(name, "false")
    if not isinstance(said, str) or said.lower() not in YES + NO:
        raise BadOption(f"{name} is {said!r}", "send true or false")
    return said.lower() in YES


def _count(form: Form, name: str) -> int | None:
    said = form.get(name)
    if said is None or said == "":
        return None
    if isinstance(said, str) and said.isascii() and said.isdecimal() and len(said) < 10 and int(said) > 0:
        return int(said)
    raise BadOption(f"{name} is {said!r}", "send a whole number greater than 0")
