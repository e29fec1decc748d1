"""Phrases among words, whatever their case and marks: where they are, and others in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conure.text.overlap_merge import normalized_letters
from conure.types import Word

__all__ = ["find_phrase", "replace_phrase"]


def find_phrase(words: Sequence[Word], phrase: str) -> list[tuple[int, int]]:
    """Where its words follow one another: index of the first, and that after the last. None overlaps another."""
    wanted = [normalized_letters(part) for part in phrase.split()]
    said = [normalized_letters(word.text) for word in words]
    found, at = [], 0
    while wanted and at + len(wanted) <= len(said):
        if said[at : at + len(wanted)] == wanted:
            found.append((at, at + len(wanted)))
            at += len(wanted)
        else:
            at += 1
    return found


def replace_phrase(words: Sequence[Word], phrase: str, other: str) -> list[Word]:
    """Another phrase in its place, with the marks around it; nothing stays where the other is empty.

    As many words as there were have their times; else they are one, which lasts as long as all of them.
    """
    replaced, done = list[Word](), 0
    for begin, end in find_phrase(words, phrase):
        replaced += [*words[done:begin], *_in_place_of(words[begin:end], other.split())]
        done = end
    return [*replaced, *words[done:]]


def _in_place_of(said: Sequence[Word], others: list[str]) -> list[Word]:
    if not others:
        return []
    before, after = _marks(said[0].text)[0], _marks(said[-1].text)[1]
    others[0] = before + others[0]
    others[-1] += after
    if len(others) == len(said):
        return [replace(word, text=text) for word, text in zip(said, others, strict=True)]
    confidences = [word.confidence for word in said if word.confidence is not None]
    whole = Word(
        text=" ".join(others),
        start=said[0].start,
        end=said[-1].end,
        confidence=min(confidences) if len(confidences) == len(said) else None,
        tokens=tuple(token for word in said for token in word.tokens),
    )
    return [whole]


def _marks(text: str) -> tuple[str, str]:
    """Those before the first letter or digit, and those after the last."""
    spoken = [index for index, character in enumerate(text) if character.isalnum()]
    return (text[: spoken[0]], text[spoken[-1] + 1 :]) if spoken else ("", "")
