"""Tokens to words to a transcript: the last part of every road."""

from __future__ import annotations

from collections.abc import Sequence

from conure.decoding.hypothesis import EmittedToken
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token, Word

__all__ = ["STEP_SECONDS", "words_of_clip"]

STEP_SECONDS = 0.08
"""An encoder step: 8 mel frames of 10 ms."""


def words_of_clip(tokens: Sequence[EmittedToken], tokenizer: Tokenizer, seconds: float) -> list[Word]:
    """Words with times from the clip's start; none ends after the clip does."""
    timed = [_timed(token, seconds) for token in tokens]
    return words_from_tokens(timed, tokenizer)


def _timed(token: EmittedToken, seconds: float) -> Token:
    start = min(token.step * STEP_SECONDS, seconds)
    end = min((token.step + token.duration) * STEP_SECONDS, seconds)
    return Token(token.id, round(start, 3), round(end, 3), token.log_probability, token.confidence)
