"""One utterance of a stream while it goes on, for models that hear whole clips: its audio, and guesses at its words.

A guess hears the utterance so far again, so it must be bounded. After one that heard `n` seconds, n / FACTOR seconds
of new audio must come before the next: guesses hear no more than FACTOR times the utterance's own audio. Where one
heard more than WINDOW seconds, the words before a seam are kept as they are guessed, and the next one hears what is
after it: so in a long utterance, too, a guess is at most WINDOW / FACTOR seconds behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from conure.text.overlap_merge import ForcedSeam, Seam, find_seam
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token, Word

__all__ = ["FACTOR", "LEAD", "WINDOW", "Utterance", "right_of"]

RATE = 16_000
FACTOR = 8
WINDOW = 8.0
LEAD = 1.0
"""Seconds before a seam that the piece after it hears, too."""


def right_of(seam: Seam[Word], first: int) -> int:
    """Where the audio after a seam begins, if that before it began with sample `first`."""
    lead = min(LEAD, (seam.at - first / RATE) / 2)
    return round((seam.at - lead) * RATE)


@dataclass(slots=True)
class Utterance:
    began: float
    first: int
    """The sample with which its audio begins."""
    is_told: bool = False
    """Whether its beginning was told of."""
    seam: Seam[Word] | ForcedSeam[Word] | None = None
    """With the utterance before, where that ended by its length, or was cut off and this one hears its end again."""
    since: float = 0.0
    """The last cut before it: its audio may begin earlier, its words do not."""
    next_guess: int = 0
    """The sample that a guess must hear to be worth it."""
    guess_first: int = field(init=False)
    """Where the audio of the next guess begins."""
    _guess_seam: Seam[Word] | ForcedSeam[Word] | None = field(init=False)
    _kept: list[Word] = field(init=False, default_factory=list)
    """Guessed words before it."""

    def __post_init__(self) -> None:
        self.guess_first, self._guess_seam = self.first, self.seam

    def final(self, tokens: Sequence[Token], tokenizer: Tokenizer) -> list[Token]:
        """All tokens of its audio -> those that are its own."""
        if self.seam is not None:
            tokens = _tokens(self.seam.merge(words_from_tokens(tokens, tokenizer)))
        return _after(tokens, self.since)

    def cut(self, tokens: Sequence[Token], end: int, tokenizer: Tokenizer) -> tuple[list[Token], Seam[Word]]:
        """The same where it ends by its length: those before a seam, and the seam with the next one."""
        words = words_from_tokens(self.final(tokens, tokenizer), tokenizer)
        seam = find_seam(words, self.first / RATE, end / RATE)
        return _tokens(seam.before), seam

    def guess(self, tokens: Sequence[Token], until: int, latency: int, tokenizer: Tokenizer) -> list[Token]:
        """Tokens of the audio from `guess_first` to `until` -> those of the utterance so far."""
        words = words_from_tokens(tokens, tokenizer)
        if self._guess_seam:
            words = self._guess_seam.merge(words)
        heard = until - self.guess_first
        self.next_guess = until + max(latency, heard // FACTOR)
        guessed = [*self._kept, *words]
        if heard > WINDOW * RATE:
            seam = find_seam(words, self.guess_first / RATE, until / RATE)
            self._kept += seam.before
            self.guess_first, self._guess_seam = right_of(seam, self.guess_first), seam
        return _after(_tokens(guessed), self.since)


def _tokens(words: Sequence[Word]) -> list[Token]:
    return [token for word in words for token in word.tokens]


def _after(tokens: Sequence[Token], since: float) -> list[Token]:
    """What is told after a cut is not before it."""
    if all(token.start >= since for token in tokens):
        return list(tokens)
    return [replace(token, start=max(token.start, since), end=max(token.end, since)) for token in tokens]
