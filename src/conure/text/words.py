"""Groups tokens into words, by NeMo's rules.

A piece that begins with "▁" (or a blank) begins a word; so does "▁" alone. A punctuation mark belongs to the word
before it, as in NeMo, but an opening one (a bracket, "¿", a quote) to the word after it. Chinese and Japanese have no
blanks: there a word also ends at a full-width mark, which NeMo does not implement.

A mark has no duration, because decoders emit marks long after the speech has ended. So a word lasts from the start of
its first spoken token to the end of its last one. NeMo does this for TDT only; here it applies to every decoder.

A word's confidence is the minimum over its tokens, marks included (NeMo's default, "min").

Independent of audio and networks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from conure.types import Token, Word

if TYPE_CHECKING:  # avoids loading two libraries at run time
    from conure.text.tokenizer import Tokenizer

__all__ = ["FULL_WIDTH_MARKS", "join_words", "words_from_tokens"]

BLANKS = "▁ "
CLOSING_MARKS = ".,;:!?%‰…।॥؟،؛۔"
FULL_WIDTH_MARKS = "。、，！？；：．」』）】》〉"


def words_from_tokens(tokens: Sequence[Token], tokenizer: Tokenizer) -> list[Word]:
    """Groups tokens into words; tokens without text (language tags, end of utterance) are omitted."""
    words = (_word(group, tokenizer) for group in _groups(tokens, tokenizer))
    return [word for word in words if word.text]


def _groups(tokens: Sequence[Token], tokenizer: Tokenizer) -> list[list[tuple[Token, str]]]:
    """The tokens of each word, with the text of each."""
    groups: list[list[tuple[Token, str]]] = []
    opening: list[tuple[Token, str]] = []  # a separate "▁", which is part of the next word
    begins_word = True
    for token in tokens:
        if tokenizer.is_special(token.id):
            continue
        piece = tokenizer.pieces[token.id]
        text = piece.strip(BLANKS)
        if not text:
            begins_word, opening = True, [(token, text)] if piece == "▁" else []
            continue
        begins_word = begins_word or piece[0] in BLANKS
        if not groups or (begins_word and not _belongs_to_previous(text)):
            groups.append(opening)
        groups[-1].append((token, text))
        begins_word, opening = text[-1] in FULL_WIDTH_MARKS, []
    return groups


def join_words(words: Iterable[Word]) -> str:
    """The text of the words, separated by blanks except after a full-width mark."""
    joined = ""
    for word in words:
        needs_blank = joined and joined[-1] not in FULL_WIDTH_MARKS
        joined += f" {word.text}" if needs_blank else word.text
    return joined


def _belongs_to_previous(text: str) -> bool:
    """Whether the text consists of marks that belong to the previous word."""
    return all(mark in CLOSING_MARKS or mark in FULL_WIDTH_MARKS or _closes(mark) for mark in text)


def _closes(mark: str) -> bool:
    return unicodedata.category(mark) in ("Pe", "Pf") and mark != "’"  # it may be an apostrophe: ’em


def _is_mark(text: str) -> bool:
    return text != "" and all(unicodedata.category(character).startswith("P") for character in text)


def _word(group: Sequence[tuple[Token, str]], tokenizer: Tokenizer) -> Word:
    tokens = [token for token, _ in group]
    spoken = [token for token, text in group if not _is_mark(text)] or tokens
    return Word(
        text=_text(tokens, tokenizer),
        start=spoken[0].start,
        end=max(spoken[0].start, spoken[-1].end),
        confidence=_min_confidence(tokens),
        tokens=tuple(tokens),
    )


def _text(tokens: Sequence[Token], tokenizer: Tokenizer) -> str:
    """Tokens are decoded together, so that bytes become letters; blanks before marks are removed."""
    return "".join(tokenizer.decode([token.id for token in tokens]).split())


def _min_confidence(tokens: Sequence[Token]) -> float | None:
    known = [token.confidence for token in tokens if token.confidence is not None]
    return min(known) if len(known) == len(tokens) else None
