"""Tokenizers of the engine's models, each read once."""

from __future__ import annotations

from conure.engine.plan import ModelInfo
from conure.text.tokenizer import Tokenizer, read_tokenizer

__all__ = ["TokenizerCache"]


class TokenizerCache:
    def __init__(self) -> None:
        self._read: dict[str, Tokenizer] = {}

    def of(self, card: ModelInfo) -> Tokenizer:
        if card.name not in self._read:
            self._read[card.name] = read_tokenizer(card.tokenizer_file, card.tokenizer, card.vocabulary)
        return self._read[card.name]
