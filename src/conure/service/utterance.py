"""What one utterance is made of so far, and how much of its text will not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from conure.service.events import Final, Partial
from conure.text.tokenizer import Tokenizer
from conure.text.words import join_words, words_from_tokens
from conure.types import Token, Word
from conure.vad.endpoints import EndReason

__all__ = ["Utterance", "final_of"]


@dataclass
class Utterance:
    number: int
    start: float
    tokens: list[Token] = field(default_factory=list)
    """Those that will not change."""

    def partial(self, tokenizer: Tokenizer, fresh: Sequence[Token], guessed: Sequence[Token], until: float) -> Partial:
        """The last word of the tokens may still grow, so it is not stable."""
        words = words_from_tokens([*self.tokens, *guessed], tokenizer)
        known = words if not guessed else words_from_tokens(self.tokens, tokenizer)
        stable = join_words(words[: max(len(known) - 1, 0)])
        tail = join_words(words)[len(stable) :]
        return Partial(self.number, stable, tail, tuple(fresh), until)


def final_of(
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
