"""Tokenizers of the engine's models; each file is read once."""

from __future__ import annotations

from conure.engine.plan import ModelInfo
from conure.text.tokenizer import Tokenizer, read_tokenizer

__all__ = ["TokenizerCache"]


class TokenizerCache:
    def __init__(self) -> None:
        self._read: dict[str, Tokenizer] = {}

    def of(self, model: ModelInfo) -> Tokenizer:
        if model.name not in self._read:
            self._read[model.name] = read_tokenizer(model.tokenizer_file, model.tokenizer, model.vocabulary)
        return self._read[model.name]
