"""The catalog of models: names, aliases, repositories, capabilities. CLI and documentation are made from it.

Sizes are those of the download; languages are those that the publisher names.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from conure.errors import UnknownModel

__all__ = ["MODELS", "CatalogModel", "advertised_languages", "find", "names", "resolve", "unknown_model"]

ENGLISH = ("en",)
# fmt: off
EUROPEAN = (
    "bg", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el", "hu", "it", "lv", "lt", "mt", "pl", "pt", "ro",
    "sk", "sl", "es", "sv", "ru", "uk",
)
LOCALES = (
    "en-US", "en-GB", "es-US", "es-ES", "de-DE", "fr-FR", "fr-CA", "it-IT", "ar-AR", "ja-JP", "ko-KR", "pt-BR",
    "pt-PT", "ru-RU", "hi-IN", "zh-CN", "vi-VN", "he-IL", "nl-NL", "cs-CZ", "da-DK", "pl-PL", "nb-NO", "nn-NO",
    "sv-SE", "th-TH", "tr-TR", "bg-BG", "el-GR", "et-EE", "fi-FI", "hr-HR", "hu-HU", "lt-LT", "lv-LV", "ro-RO",
    "sk-SK", "uk-UA", "mt-MT", "sl-SI",
)
# fmt: on


@dataclass(frozen=True)
class CatalogModel:
    name: str
    family: str
    """See `Checkpoint.family`."""
    head: str
    """The head used by default: tdt, rnnt or ctc."""
    languages: tuple[str, ...]
    megabytes: int
    repository: str = ""
    """Id on the Hugging Face hub; empty for models that are part of the package."""
    is_live: bool = False
    """Cache-aware, made for live audio. All models can transcribe clips."""
    abilities: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


PUNCTUATION = "punctuation and capitals"
DETECTS = "detects the language"

MODELS: tuple[CatalogModel, ...] = (
    CatalogModel(
        "parakeet-tdt-0.6b-v3",
        "parakeet-tdt",
        "tdt",
        EUROPEAN,
        2510,
        "nvidia/parakeet-tdt-0.6b-v3",
        abilities=(PUNCTUATION, DETECTS),
        aliases=("parakeet", "whisper-1", "nova-3"),
    ),
    CatalogModel(
        "parakeet-tdt-0.6b-v2",
        "parakeet-tdt",
        "tdt",
        ENGLISH,
        2470,
        "nvidia/parakeet-tdt-0.6b-v2",
        abilities=(PUNCTUATION,),
    ),
    CatalogModel("parakeet-tdt-1.1b", "parakeet-tdt", "tdt", ENGLISH, 4280, "nvidia/parakeet-tdt-1.1b"),
    CatalogModel(
        "parakeet-tdt_ctc-110m",
        "parakeet-tdt-ctc",
        "tdt",
        ENGLISH,
        459,
        "nvidia/parakeet-tdt_ctc-110m",
        abilities=(PUNCTUATION,),
    ),
    CatalogModel(
        "parakeet-tdt_ctc-1.1b",
        "parakeet-tdt-ctc",
        "tdt",
        ENGLISH,
        4290,
        "nvidia/parakeet-tdt_ctc-1.1b",
        abilities=(PUNCTUATION, "local attention"),
    ),
    CatalogModel("parakeet-rnnt-0.6b", "parakeet-rnnt", "rnnt", ENGLISH, 2470, "nvidia/parakeet-rnnt-0.6b"),
    CatalogModel("parakeet-rnnt-1.1b", "parakeet-rnnt", "rnnt", ENGLISH, 4280, "nvidia/parakeet-rnnt-1.1b"),
    CatalogModel("parakeet-ctc-0.6b", "parakeet-ctc", "ctc", ENGLISH, 2440, "nvidia/parakeet-ctc-0.6b"),
    CatalogModel("parakeet-ctc-1.1b", "parakeet-ctc", "ctc", ENGLISH, 4250, "nvidia/parakeet-ctc-1.1b"),
    CatalogModel(
        "parakeet-unified-en-0.6b",
        "parakeet-unified",
        "rnnt",
        ENGLISH,
        2470,
        "nvidia/parakeet-unified-en-0.6b",
        abilities=(PUNCTUATION, "buffered streaming"),
    ),
    CatalogModel(
        "parakeet_realtime_eou_120m-v1",
        "parakeet-eou",
        "rnnt",
        ENGLISH,
        460,
        "nvidia/parakeet_realtime_eou_120m-v1",
        is_live=True,
        abilities=("marks the end of an utterance",),
        aliases=("parakeet-eou",),
    ),
    CatalogModel(
        "nemotron-speech-streaming-en-0.6b",
        "nemotron-streaming",
        "rnnt",
        ENGLISH,
        2470,
        "nvidia/nemotron-speech-streaming-en-0.6b",
        is_live=True,
        abilities=(PUNCTUATION,),
        aliases=("nemotron",),
    ),
    CatalogModel(
        "nemotron-3.5-asr-streaming-0.6b",
        "nemotron-multilingual",
        "rnnt",
        LOCALES,
        2368,
        "nvidia/nemotron-3.5-asr-streaming-0.6b",
        is_live=True,
        abilities=(PUNCTUATION, DETECTS, "language prompt"),
        aliases=("nemotron-3.5",),
    ),
    CatalogModel(
        "multitalker-parakeet-streaming-0.6b-v1",
        "multitalker",
        "rnnt",
        ENGLISH,
        2490,
        "nvidia/multitalker-parakeet-streaming-0.6b-v1",
        is_live=True,
        abilities=(PUNCTUATION, "follows one of several speakers"),
        aliases=("multitalker",),
    ),
    CatalogModel("tiny", "parakeet-tdt-ctc", "tdt", ENGLISH, 8, abilities=("for trying things out only",)),
    CatalogModel(
        "tiny-live", "parakeet-eou", "rnnt", ENGLISH, 8, is_live=True, abilities=("for trying things out only",)
    ),
)


def names() -> tuple[str, ...]:
    """All names and aliases."""
    return tuple(name for model in MODELS for name in (model.name, *model.aliases))


def find(name: str) -> CatalogModel | None:
    """The model with this name, alias or hub id, else None. Case-insensitive."""
    lowered = name.lower()
    for model in MODELS:
        if lowered in (model.name.lower(), model.repository.lower() or None, *model.aliases):
            return model
    return None


def advertised_languages(prompt_ids: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The languages to list for a prompt dictionary, which also holds aliases and slots that were never trained.

    The languages of the published model if the dictionary contains them all; otherwise one name per slot, preferably a
    published one, else the longest.
    """
    slots = dict(prompt_ids)
    if slots.keys() >= {*LOCALES}:
        return LOCALES
    names: dict[int, str] = {}
    for name, slot in sorted(prompt_ids, key=lambda entry: (entry[0] not in LOCALES, -len(entry[0]))):
        if name != "auto":
            names.setdefault(slot, name)
    return tuple(name for name, slot in prompt_ids if names.get(slot) == name)


def resolve(name: str) -> CatalogModel:
    """The model with this name. Raises UnknownModel with similar names as a hint."""
    model = find(name)
    if model is None:
        raise unknown_model(name)
    return model


def unknown_model(name: str) -> UnknownModel:
    """The error for a name that is not in the catalog."""
    close = difflib.get_close_matches(name.lower(), names(), n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "`conure models` lists those there are"
    return UnknownModel(f"no model named {name!r}", hint)
