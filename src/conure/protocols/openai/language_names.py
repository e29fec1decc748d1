"""Languages by their English names, as in OpenAI's responses."""

from __future__ import annotations

from conure.text.locales import ENGLISH_NAMES

__all__ = ["language_code", "language_name"]


def language_code(language: str) -> str:
    """en-US -> en."""
    return language.replace("_", "-").split("-")[0].lower()


def language_name(code: str) -> str:
    """en -> english. Returns the code itself if it has no name."""
    return ENGLISH_NAMES.get(code, code)
