"""Tokens of the current utterance, and the partials and the final that are made of them."""

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
    """Final tokens."""
    _sent: int = 0
    """Tokens that partials have sent."""
    _sent_before_rewind: list[Token] = field(default_factory=list)
    """Sent tokens of an utterance that is processed again."""

    def rewind(self, begin: float) -> None:
        """Drops tokens that end after that time: a restarted engine decodes them again, perhaps differently."""
        self._sent_before_rewind = self._sent_before_rewind or self.tokens[: self._sent]
        self.tokens = [token for token in self.tokens if token.end <= begin]

    def partial(self, tokenizer: Tokenizer, guessed: Sequence[Token], processed_until: float) -> Partial:
        """`guessed`: tokens that may change. The last word of the final tokens may grow, so it is not stable."""
        if self._sent_before_rewind:
            self._sent, self._sent_before_rewind = _common_prefix(self._sent_before_rewind, self.tokens), []
        new, self._sent = self.tokens[self._sent :], len(self.tokens)
        words = words_from_tokens([*self.tokens, *guessed], tokenizer)
        final_words = words if not guessed else words_from_tokens(self.tokens, tokenizer)
        stable_words = tuple(words[: max(len(final_words) - 1, 0)])
        stable = join_words(stable_words)
        tail = join_words(words)[len(stable) :]
        tail_words = tuple(words[len(stable_words) :])
        return Partial(self.number, stable, tail, tuple(new), processed_until, stable_words, tail_words)


def _common_prefix(before: Sequence[Token], after: Sequence[Token]) -> int:
    """Number of equal tokens at the beginning."""
    same = (old.id == new.id for old, new in zip(before, after, strict=False))
    return sum(takewhile(bool, same))


def make_final(
    utterance: Utterance, words: Sequence[Word], end: float, reason: EndReason, model: str, language: str | None
) -> Final:
    confidences = [word.confidence for word in words if word.confidence is not None]
    is_known = len(confidences) == len(words) > 0
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
        confidence=sum(confidences) / len(confidences) if is_known else None,
        language=language,
    )
