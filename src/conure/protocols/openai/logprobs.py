"""How probable each token of a text was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from conure.protocols.openai.schemas import LogProbability
from conure.text.tokenizer import Tokenizer
from conure.text.words import join_words
from conure.types import Word

__all__ = ["piece_bytes", "text_after", "log_probabilities"]

BLANKS = "▁ "
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A piece of SentencePiece that is one byte of a letter."""


def text_after(words: Sequence[Word], before: Word | None = None) -> str:
    """What the words add to a text that ends with the word before them."""
    if before is None:
        return join_words(words)
    return join_words([before, *words]).removeprefix(before.text)


def log_probabilities(
    words: Sequence[Word], tokenizer: Tokenizer, before: Word | None = None
) -> Iterator[LogProbability]:
    """Of each token, in order."""
    for word in words:
        blank = text_after([word], before).removesuffix(word.text)
        for token in word.tokens:
            data = blank.encode() + piece_bytes(tokenizer.pieces[token.id])
            blank = ""
            text = data.decode(errors="replace")
            yield LogProbability(token=text, bytes=list(data), logprob=token.log_probability)
        before = word


def piece_bytes(piece: str) -> bytes:
    """Of a piece of a tokenizer, without the blank before it."""
    byte = BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.strip(BLANKS).encode()
