"""Which of a model's languages was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from conure.errors import UnsupportedLanguage

__all__ = ["check_language", "only_language", "prompt_slot"]

AUTO = "auto"
"""The prompt under which a model finds out by itself."""


def check_language(model: str, language: str | None, known: Sequence[str]) -> None:
    """Raises UnsupportedLanguage where the model's languages are known and this is none of them."""
    if language is None or not known or _match(language, known) is not None:
        return
    raise UnsupportedLanguage(f"{model} does not know the language {language!r}", f"it knows: {', '.join(known)}")


def only_language(known: Sequence[str]) -> str | None:
    """What a model that has one language hears; None where it may be one of several."""
    return known[0] if len(known) == 1 else None


def prompt_slot(model: str, language: str | None, prompt_ids: Sequence[tuple[str, int]]) -> int | None:
    """The slot of the language prompt; None for models that take none."""
    slots = dict(prompt_ids)
    if not slots:
        return None
    wanted = _match(language or AUTO, tuple(slots))
    if wanted is None:
        names = ", ".join(name for name in slots if name != AUTO)
        asked = f"does not know the language {language!r}" if language else "must be told the language"
        raise UnsupportedLanguage(f"{model} {asked}", f"it knows: {names}")
    return slots[wanted]


def _match(language: str, known: Sequence[str]) -> str | None:
    """The name itself, or the first that has the same language when one of both names no region."""
    asked = language.replace("_", "-").lower()
    names = {name.lower(): name for name in known}
    if asked in names:
        return names[asked]
    primary = asked.split("-")[0]
    if primary in names:
        return names[primary]
    regions = [name for name in known if name.lower().startswith(f"{primary}-")]
    return regions[0] if regions and asked == primary else None
