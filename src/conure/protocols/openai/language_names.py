"""Languages by their English names, as OpenAI answers them."""

from __future__ import annotations

from conure.text.locales import ENGLISH_NAMES

__all__ = ["language_code", "language_name"]


def language_code(language: str) -> str:
    """en-US -> en."""
    return language.replace("_", "-").split("-")[0].lower()


def language_name(code: str) -> str:
    """en -> english; a code that has no name here is its own."""
    return ENGLISH_NAMES.get(code, code)
