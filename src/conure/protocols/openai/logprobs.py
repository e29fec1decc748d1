"""Log probabilities of the tokens of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from conure.protocols.openai.schemas import LogProbability
from conure.text.tokenizer import Tokenizer
from conure.text.words import join_words
from conure.types import Word

__all__ = ["piece_bytes", "text_after", "log_probabilities"]

SPACES = "▁ "
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A SentencePiece piece that is one byte of a character."""


def text_after(words: Sequence[Word], previous: Word | None = None) -> str:
    """Returns the text that the words append after the word `previous`."""
    if previous is None:
        return join_words(words)
    return join_words([previous, *words]).removeprefix(previous.text)


def log_probabilities(
    words: Sequence[Word], tokenizer: Tokenizer, previous: Word | None = None
) -> Iterator[LogProbability]:
    """Yields one entry per token, in order."""
    for word in words:
        space = text_after([word], previous).removesuffix(word.text)
        for token in word.tokens:
            data = space.encode() + piece_bytes(tokenizer.pieces[token.id])
            space = ""
            text = data.decode(errors="replace")
            yield LogProbability(token=text, bytes=list(data), logprob=token.log_probability)
        previous = word


def piece_bytes(piece: str) -> bytes:
    """Returns the bytes of a tokenizer piece without its leading space."""
    match = BYTE_PIECE.fullmatch(piece)
    return bytes.fromhex(match[1]) if match else piece.strip(SPACES).encode()
