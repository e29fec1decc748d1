"""What one utterance is made of so far, and how much of its text will not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from conure.service.events import Final, Partial
from conure.text.tokenizer import Tokenizer
from conure.text.words import join_words, words_from_tokens
from conure.types import Token, Word
from conure.vad.endpointing import EndReason

__all__ = ["Utterance", "make_final"]


@dataclass
class Utterance:
    number: int
    start: float
    tokens: list[Token] = field(default_factory=list)
    """Those that will not change."""
    _told: int = 0
    """How many of them partials have told."""
    _before: list[Token] = field(default_factory=list)
    """What was told of an utterance that is heard again."""

    def rewind(self, begin: float) -> None:
        """Tokens that end after that time will come once more, perhaps other ones."""
        self._before = self._before or self.tokens[: self._told]
        self.tokens = [token for token in self.tokens if token.end <= begin]

    def partial(self, tokenizer: Tokenizer, guessed: Sequence[Token], until: float) -> Partial:
        """The last word of the tokens may still grow, so it is not stable."""
        if self._before:
            self._told, self._before = _common(self._before, self.tokens), []
        fresh, self._told = self.tokens[self._told :], len(self.tokens)
        words = words_from_tokens([*self.tokens, *guessed], tokenizer)
        known = words if not guessed else words_from_tokens(self.tokens, tokenizer)
        sure = tuple(words[: max(len(known) - 1, 0)])
        stable = join_words(sure)
        tail = join_words(words)[len(stable) :]
        return Partial(self.number, stable, tail, tuple(fresh), until, sure, tuple(words[len(sure) :]))


def _common(before: Sequence[Token], after: Sequence[Token]) -> int:
    """How many tokens are the same from the first on."""
    same = (old.id == new.id for old, new in zip(before, after, strict=False))
    return sum(takewhile(bool, same))


def make_final(
    utterance: Utterance, words: Sequence[Word], end: float, reason: EndReason, model: str, language: str | None
) -> Final:
    confidences = [word.confidence for word in words if word.confidence is not None]
    known = len(confidences) == len(words) > 0
    starts = [word.start for word in words if word.start is not None]
    ends = [word.end for word in words if word.end is not None]
    return Final(
        utterance=utterance.number,
        text=join_words(words),
        words=tuple(words),
        start=starts[0] if starts else utterance.start,
        end=ends[-1] if ends else end,
        reason=reason,
        model=model,
        confidence=sum(confidences) / len(confidences) if known else None,
        language=language,
    )
