"""An utterance in progress, for models that transcribe whole clips: its audio, and the words of its partials.

Each partial decodes the utterance so far again, so partials must be bounded. After one that decoded `n` seconds, the
next one waits for n / FACTOR seconds of new audio: partials decode at most FACTOR times the utterance's own audio. When
one decoded more than WINDOW seconds, the words before a seam are kept as they are, and the next one decodes what is
after the seam: so in a long utterance, too, a partial is at most WINDOW / FACTOR seconds late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from conure.constants import SAMPLE_RATE
from conure.text.overlap_merge import ForcedSeam, Seam, find_seam
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token, Word

__all__ = ["FACTOR", "LEAD", "WINDOW", "Utterance", "audio_after"]

FACTOR = 8
WINDOW = 8.0
LEAD = 1.0
"""Seconds before a seam with which the audio after it begins."""


def audio_after(seam: Seam[Word], first: int) -> int:
    """First sample of the audio after a seam, when the audio before it began at sample `first`."""
    lead = min(LEAD, (seam.at - first / SAMPLE_RATE) / 2)
    return round((seam.at - lead) * SAMPLE_RATE)


@dataclass(slots=True)
class Utterance:
    start: float
    first: int
    """First sample of its audio."""
    is_reported: bool = False
    """Whether SpeechStarted was emitted."""
    seam: Seam[Word] | ForcedSeam[Word] | None = None
    """With the previous utterance, when that was split for its length, or ended by a finalize whose end is decoded
    again."""
    since: float = 0.0
    """Time of the last finalize before it: its audio may begin earlier, its words may not."""
    next_partial: int = 0
    """Samples to wait for before the next partial."""
    partial_first: int = field(init=False)
    """First sample of the next partial's audio."""
    _partial_seam: Seam[Word] | ForcedSeam[Word] | None = field(init=False)
    _kept_words: list[Word] = field(init=False, default_factory=list)
    """Words of earlier partials, before `partial_first`."""

    def __post_init__(self) -> None:
        self.partial_first, self._partial_seam = self.first, self.seam

    def final(self, tokens: Sequence[Token], tokenizer: Tokenizer) -> list[Token]:
        """The tokens of its audio -> without those of the previous utterance."""
        if self.seam is not None:
            tokens = _tokens(self.seam.merge(words_from_tokens(tokens, tokenizer)))
        return _not_before(tokens, self.since)

    def split(self, tokens: Sequence[Token], end: int, tokenizer: Tokenizer) -> tuple[list[Token], Seam[Word]]:
        """For an utterance that ends by its length: the tokens before a seam, and the seam with the next utterance."""
        words = words_from_tokens(self.final(tokens, tokenizer), tokenizer)
        seam = find_seam(words, self.first / SAMPLE_RATE, end / SAMPLE_RATE)
        return _tokens(seam.before), seam

    def partial(self, tokens: Sequence[Token], until: int, latency: int, tokenizer: Tokenizer) -> list[Token]:
        """The tokens of the audio from `partial_first` to `until` -> those of the utterance so far."""
        words = words_from_tokens(tokens, tokenizer)
        if self._partial_seam:
            words = self._partial_seam.merge(words)
        decoded = until - self.partial_first
        self.next_partial = until + max(latency, decoded // FACTOR)
        utterance_words = [*self._kept_words, *words]
        if decoded > WINDOW * SAMPLE_RATE:
            seam = find_seam(words, self.partial_first / SAMPLE_RATE, until / SAMPLE_RATE)
            self._kept_words += seam.before
            self.partial_first, self._partial_seam = audio_after(seam, self.partial_first), seam
        return _not_before(_tokens(utterance_words), self.since)


def _tokens(words: Sequence[Word]) -> list[Token]:
    return [token for word in words for token in word.tokens]


def _not_before(tokens: Sequence[Token], since: float) -> list[Token]:
    """Tokens emitted after a finalize must not have times before it."""
    if all(token.start >= since for token in tokens):
        return list(tokens)
    return [replace(token, start=max(token.start, since), end=max(token.end, since)) for token in tokens]
