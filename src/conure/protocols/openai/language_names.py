"""Languages by their English names, as OpenAI answers them."""

from __future__ import annotations

from conure.text.locales import ENGLISH

__all__ = ["code_of", "name_of"]


def code_of(language: str) -> str:
    """en-US -> en."""
    return language.replace("_", "-").split("-")[0].lower()


def name_of(code: str) -> str:
    """en -> english; a code that has no name here is its own."""
    return ENGLISH.get(code, code)
