"""Tokens to words to a transcript: the last part of every road."""

from __future__ import annotations

from collections.abc import Sequence

from conure.decoding.emitted_token import EmittedToken
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Word

__all__ = ["words_of_clip"]


def words_of_clip(tokens: Sequence[EmittedToken], tokenizer: Tokenizer, seconds: float) -> list[Word]:
    """Words with times from the clip's start; none ends after the clip does."""
    return words_from_tokens([token.to_token(end=seconds) for token in tokens], tokenizer)
