"""Tokens to words, by NeMo's rules.

A piece that begins with "▁" (or a blank) begins a word; so does "▁" alone. A mark of punctuation joins the word before
it, as NeMo joins it, but one that opens something (a bracket, "¿", a quote) joins the word after it. Chinese and
Japanese write no blanks: there a word ends at a full-width mark too, which NeMo does not do.

A mark takes no time: decoders emit marks long after the voice has stopped. So a word runs from the start of its first
spoken token to the end of its last one. NeMo does this for TDT only; here it holds for every decoder.

A word's confidence is that of its least certain token, marks included (NeMo's default, "min").

Knows nothing of audio or networks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from conure.types import Token, Word

if TYPE_CHECKING:  # at run time it would load two libraries that nothing here needs
    from conure.text.tokenizer import Tokenizer

__all__ = ["FULL_WIDTH_MARKS", "join_words", "words_from_tokens"]

BLANKS = "▁ "
CLINGING_MARKS = ".,;:!?%‰…।॥؟،؛۔"
FULL_WIDTH_MARKS = "。、，！？；：．」』）】》〉"


def words_from_tokens(tokens: Sequence[Token], tokenizer: Tokenizer) -> list[Word]:
    """Group tokens into words; tokens that carry no text (language tags, end of utterance) are left out."""
    words = (_word(group, tokenizer) for group in _groups(tokens, tokenizer))
    return [word for word in words if word.text]


def _groups(tokens: Sequence[Token], tokenizer: Tokenizer) -> list[list[tuple[Token, str]]]:
    """The tokens of each word, with the text of each."""
    groups: list[list[tuple[Token, str]]] = []
    opening: list[tuple[Token, str]] = []  # a "▁" of its own, which is part of the word that it opens
    parted = True
    for token in tokens:
        if tokenizer.is_special(token.id):
            continue
        piece = tokenizer.pieces[token.id]
        text = piece.strip(BLANKS)
        if not text:
            parted, opening = True, [(token, text)] if piece == "▁" else []
            continue
        parted = parted or piece[0] in BLANKS
        if not groups or (parted and not _is_clinging(text)):
            groups.append(opening)
        groups[-1].append((token, text))
        parted, opening = text[-1] in FULL_WIDTH_MARKS, []
    return groups


def join_words(words: Iterable[Word]) -> str:
    """The text of the words: blanks between them, but none after a full-width mark."""
    joined = ""
    for word in words:
        apart = joined and joined[-1] not in FULL_WIDTH_MARKS
        joined += f" {word.text}" if apart else word.text
    return joined


def _is_clinging(text: str) -> bool:
    """Whether the text is nothing but marks that belong to the word before them."""
    return all(mark in CLINGING_MARKS or mark in FULL_WIDTH_MARKS or _closes(mark) for mark in text)


def _closes(mark: str) -> bool:
    return unicodedata.category(mark) in ("Pe", "Pf") and mark != "’"  # that one may be an apostrophe: ’em


def _is_mark(text: str) -> bool:
    return text != "" and all(unicodedata.category(character).startswith("P") for character in text)


def _word(group: Sequence[tuple[Token, str]], tokenizer: Tokenizer) -> Word:
    tokens = [token for token, _ in group]
    spoken = [token for token, text in group if not _is_mark(text)] or tokens
    return Word(
        text=_text(tokens, tokenizer),
        start=spoken[0].start,
        end=max(spoken[0].start, spoken[-1].end),
        confidence=_least_confidence(tokens),
        tokens=tuple(tokens),
    )


def _text(tokens: Sequence[Token], tokenizer: Tokenizer) -> str:
    """Decoded together, so that bytes become letters; a clinging mark loses the blank before it."""
    return "".join(tokenizer.decode([token.id for token in tokens]).split())


def _least_confidence(tokens: Sequence[Token]) -> float | None:
    known = [token.confidence for token in tokens if token.confidence is not None]
    return min(known) if len(known) == len(tokens) else None
