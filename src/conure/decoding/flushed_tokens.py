"""Removes the tokens that a flush has already emitted from the regular decoding of a stream.

A flush decodes an unfinished chunk with zeros after it, from a copy of the row's state. The row itself is not affected:
it decodes the same audio again when its chunk is complete, and so emits the tokens of a stream without flushes. Each of
them is new unless a flush has emitted an equivalent one; that one is matched only once. So no later word is lost, even
if a flush has misrecognised the beginning of a word.
"""

from __future__ import annotations

from collections.abc import Sequence

from conure.decoding.emitted_token import EmittedToken
from conure.text.tokenizer import WORD_START

__all__ = ["TOLERANCE", "FlushedTokens", "spoken_forms"]

TOLERANCE = 6
"""Steps (0.5 s) by which the times of equivalent tokens may differ."""
MARK = "."


def spoken_forms(pieces: Sequence[str]) -> tuple[str, ...]:
    """The spoken form of each piece: its letters in lower case. All punctuation marks have the same form."""
    return tuple(_spoken_form(piece) for piece in pieces)


class FlushedTokens:
    """The flushed tokens of one stream that its row has not yet decoded, in the order of their steps."""

    def __init__(self, forms: Sequence[str] = ()) -> None:
        """`forms`: spoken forms of all tokens; without them only identical tokens are equivalent."""
        self._forms = forms
        self._waiting: list[EmittedToken] = []

    def remove_known(self, tokens: Sequence[EmittedToken], flush: bool) -> Sequence[EmittedToken]:
        """The tokens of a flush or of the row's next chunk -> those without an equivalent in earlier flushes."""
        if not self._waiting and not flush:
            return tokens
        new, waiting = self._compare(tokens)
        if flush:
            waiting = sorted([*self._waiting, *new], key=lambda token: token.step)
        self._waiting = waiting
        return new

    def _compare(self, tokens: Sequence[EmittedToken]) -> tuple[list[EmittedToken], list[EmittedToken]]:
        """The new tokens, and the flushed ones that may still be matched after the last token."""
        new, waiting = [], self._waiting
        for token in tokens:
            match = next((index for index, flushed in enumerate(waiting) if self._are_equivalent(token, flushed)), None)
            if match is None:
                new.append(token)
                waiting = [flushed for flushed in waiting if flushed.step > token.step]
            else:
                waiting = waiting[match + 1 :]
        return new, waiting

    def _are_equivalent(self, token: EmittedToken, other: EmittedToken) -> bool:
        if abs(token.step - other.step) > TOLERANCE:
            return False
        return token.id == other.id or (bool(self._forms) and self._forms[token.id] == self._forms[other.id])


def _spoken_form(piece: str) -> str:
    letters = "".join(character for character in piece.casefold() if character.isalnum())
    return letters if letters or piece == WORD_START else MARK
