"""Which of a model's languages was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from conure.errors import UnsupportedLanguage
from conure.text.locales import find_locale, language_tag

__all__ = ["check_language", "only_language", "prompt_id_for"]

AUTO = "auto"
"""The prompt under which a model finds out by itself."""


def check_language(
    model: str, language: str | None, known: Sequence[str], prompt_ids: Sequence[tuple[str, int]] = ()
) -> str | None:
    """Its tag: en of English and of eng; None where the model is to find out.

    Raises UnsupportedLanguage where the model's languages are known and this is none of them.
    A model with a language prompt takes every name of its dictionary, also those that it does not advertise.
    """
    tag = language_tag(language) if language else ""
    if not tag or tag.lower() == AUTO:
        return None
    if known and find_locale(tag, known) is None and find_locale(tag, dict(prompt_ids)) is None:
        raise UnsupportedLanguage(f"{model} does not know the language {language!r}", f"it knows: {', '.join(known)}")
    return tag


def only_language(known: Sequence[str]) -> str | None:
    """What a model that has one language hears; None where it may be one of several."""
    return known[0] if len(known) == 1 else None


def prompt_id_for(model: str, language: str | None, prompt_ids: Sequence[tuple[str, int]]) -> int | None:
    """The slot of the language prompt; None for models that take none."""
    slots = dict(prompt_ids)
    if not slots:
        return None
    wanted = find_locale(language or AUTO, slots)
    if wanted is None:
        names = ", ".join(name for name in slots if name != AUTO)
        asked = f"does not know the language {language!r}" if language else "must be told the language"
        raise UnsupportedLanguage(f"{model} {asked}", f"it knows: {names}")
    return slots[wanted]
