"""Checks a requested language against the languages of a model."""

from __future__ import annotations

from collections.abc import Sequence

from conure.errors import UnsupportedLanguage
from conure.text.locales import find_locale, language_tag

__all__ = ["check_language", "only_language", "prompt_id_for"]

AUTO = "auto"
"""The prompt for automatic detection."""


def check_language(
    model: str, language: str | None, known: Sequence[str], prompt_ids: Sequence[tuple[str, int]] = ()
) -> str | None:
    """Normalizes a language to its tag: en for English and eng; None for automatic detection.

    Raises UnsupportedLanguage if the model's languages are known and do not include it. A model with a language prompt
    accepts every name of its prompt dictionary, including those that it does not advertise.
    """
    tag = language_tag(language) if language else ""
    if not tag or tag.lower() == AUTO:
        return None
    if known and find_locale(tag, known) is None and find_locale(tag, dict(prompt_ids)) is None:
        raise UnsupportedLanguage(
            f"{model} does not support the language {language!r}", f"it knows: {', '.join(known)}"
        )
    return tag


def only_language(known: Sequence[str]) -> str | None:
    """The language of a model with a single one; None if it has several."""
    return known[0] if len(known) == 1 else None


def prompt_id_for(model: str, language: str | None, prompt_ids: Sequence[tuple[str, int]]) -> int | None:
    """Id of the language prompt; None for models without language prompts. Raises UnsupportedLanguage."""
    prompts = dict(prompt_ids)
    if not prompts:
        return None
    name = find_locale(language or AUTO, prompts)
    if name is None:
        problem = f"does not support the language {language!r}" if language else "requires a language"
        supported = ", ".join(name for name in prompts if name != AUTO)
        raise UnsupportedLanguage(f"{model} {problem}", f"it knows: {supported}")
    return prompts[name]
