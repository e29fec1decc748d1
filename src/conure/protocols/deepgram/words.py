"""Words as Deepgram has them: plain ones in small letters without marks, and beside them how they are written."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from conure.engine.plan import ModelInfo
from conure.models import catalog
from conure.text.lexical_form import lexical_form
from conure.text.words import join_words
from conure.types import Word

__all__ = ["alternative", "mean_confidence", "model_info", "model_uuid", "transcript", "word"]


def word(said: Word, written: bool) -> dict[str, Any]:
    """`written`: with marks and capitals, which is what `punctuate` and `smart_format` ask for."""
    fields = {"word": lexical_form(said.text) or said.text, "start": said.start, "end": said.end}
    fields["confidence"] = said.confidence
    return fields | {"punctuated_word": said.text} if written else fields


def transcript(words: Iterable[Word], written: bool) -> str:
    if written:
        return join_words(words)
    return join_words(replace(said, text=lexical_form(said.text)) for said in words if lexical_form(said.text))


def alternative(words: Sequence[Word], written: bool, languages: Sequence[str] = ()) -> dict[str, Any]:
    """What was said, as an entry of `alternatives`. `languages`: those that are known to be spoken."""
    fields: dict[str, Any] = {
        "transcript": transcript(words, written),
        "confidence": mean_confidence(words),
        "words": [word(said, written) for said in words if written or lexical_form(said.text)],
    }
    return fields | {"languages": list(languages)} if languages else fields


def mean_confidence(words: Sequence[Word]) -> float | None:
    """0 where nothing was said, None where the model tells none."""
    known = [said.confidence for said in words if said.confidence is not None]
    if not words:
        return 0.0
    return round(sum(known) / len(known), 4) if known else None


def model_uuid(card: ModelInfo) -> str:
    """The same in every process and after every start."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://huggingface.co/{card.name}"))


def model_info(card: ModelInfo) -> dict[str, str]:
    entry = catalog.find(card.name)
    return {"name": card.name, "version": version("conure"), "arch": entry.family if entry else card.name}
