"""Tokens that flushes have given, left out where the stream's own decoding comes to them.

A flush decodes up to a cut with zeros after it, from a copy of the row's state. The row itself knows nothing of that:
it decodes the same audio again when its chunk is whole, with what followed the cut, and so gives the tokens of a stream
without cuts. Each of them is new unless a flush gave its like, which then counts for no other. So no later word is
lost, whatever a flush made of the beginning of a word.
"""

from __future__ import annotations

from collections.abc import Sequence

from conure.decoding.emitted_token import EmittedToken
from conure.text.tokenizer import WORD_START

__all__ = ["TOLERANCE", "FlushedTokens", "spoken_forms"]

TOLERANCE = 6
"""Steps (0.5 s) by which a flush and the row may differ about when a token is emitted."""
MARK = "."


def spoken_forms(pieces: Sequence[str]) -> tuple[str, ...]:
    """What is said of each piece: its letters, whatever their case. All marks are alike: they are not said."""
    return tuple(_sound(piece) for piece in pieces)


class FlushedTokens:
    """Those of one stream that its row has not come to, in the order of their steps."""

    def __init__(self, sounds: Sequence[str] = ()) -> None:
        """`sounds` of all tokens; where there are none, tokens are alike that are the same."""
        self._sounds = sounds
        self._waiting: list[EmittedToken] = []

    def remove_known(self, tokens: Sequence[EmittedToken], flush: bool) -> Sequence[EmittedToken]:
        """The tokens of a flush or of the row's next chunk -> those whose like no flush gave before."""
        if not self._waiting and not flush:
            return tokens
        new, waiting = self._compare(tokens)
        if flush:
            waiting = sorted([*self._waiting, *new], key=lambda token: token.step)
        self._waiting = waiting
        return new

    def _compare(self, tokens: Sequence[EmittedToken]) -> tuple[list[EmittedToken], list[EmittedToken]]:
        """The tokens that are new, and those that are still waited for after the last token."""
        new, waiting = [], self._waiting
        for token in tokens:
            like = next((place for place, other in enumerate(waiting) if self._are_alike(token, other)), None)
            if like is None:
                new.append(token)
                waiting = [other for other in waiting if other.step > token.step]
            else:
                waiting = waiting[like + 1 :]
        return new, waiting

    def _are_alike(self, token: EmittedToken, other: EmittedToken) -> bool:
        if abs(token.step - other.step) > TOLERANCE:
            return False
        return token.id == other.id or (bool(self._sounds) and self._sounds[token.id] == self._sounds[other.id])


def _sound(piece: str) -> str:
    letters = "".join(character for character in piece.casefold() if character.isalnum())
    return letters if letters or piece == WORD_START else MARK
