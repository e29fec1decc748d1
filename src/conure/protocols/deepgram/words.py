"""Words in Deepgram's format: the lexical form (lower case, no punctuation) and the written form beside it."""

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

__all__ = ["alternative", "mean_confidence", "model_info", "model_uuid", "render_word", "transcript"]


def render_word(word: Word, written: bool) -> dict[str, Any]:
    """`written`: adds the form with punctuation and capitals, as `punctuate` and `smart_format` request."""
    fields = {"word": lexical_form(word.text) or word.text, "start": word.start, "end": word.end}
    fields["confidence"] = word.confidence
    return fields | {"punctuated_word": word.text} if written else fields


def transcript(words: Iterable[Word], written: bool) -> str:
    if written:
        return join_words(words)
    return join_words(replace(word, text=lexical_form(word.text)) for word in words if lexical_form(word.text))


def alternative(words: Sequence[Word], written: bool, languages: Sequence[str] = ()) -> dict[str, Any]:
    """Returns an entry of `alternatives`. `languages`: the known languages of the audio."""
    fields: dict[str, Any] = {
        "transcript": transcript(words, written),
        "confidence": mean_confidence(words),
        "words": [render_word(word, written) for word in words if written or lexical_form(word.text)],
    }
    return fields | {"languages": list(languages)} if languages else fields


def mean_confidence(words: Sequence[Word]) -> float | None:
    """0 without words, None if the model gives no confidences."""
    known = [word.confidence for word in words if word.confidence is not None]
    if not words:
        return 0.0
    return round(sum(known) / len(known), 4) if known else None


def model_uuid(model: ModelInfo) -> str:
    """Stable across processes and restarts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://huggingface.co/{model.name}"))


def model_info(model: ModelInfo) -> dict[str, str]:
    entry = catalog.find(model.name)
    return {"name": model.name, "version": version("conure"), "arch": entry.family if entry else model.name}
