"""Parsing of language names and tags (BCP 47), and matching with supported languages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ENGLISH_NAMES", "Locale", "find_locale", "parse_locale", "language_tag"]

# fmt: off
CODES = {
    "ara": "ar", "bul": "bg", "ces": "cs", "cze": "cs", "dan": "da", "deu": "de", "ell": "el", "eng": "en", "est": "et",
    "fin": "fi", "fra": "fr", "fre": "fr", "ger": "de", "gre": "el", "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu",
    "ita": "it", "jpn": "ja", "kor": "ko", "lit": "lt", "lav": "lv", "mlt": "mt", "nob": "nb", "nld": "nl", "dut": "nl",
    "nno": "nn", "nor": "no", "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "slk": "sk", "slo": "sk",
    "slv": "sl", "spa": "es", "swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi", "zho": "zh", "chi": "zh",
}
"""Three-letter codes (ISO 639-2) of languages that have a two-letter code."""
ENGLISH_NAMES = {
    "ar": "arabic", "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi",
    "hr": "croatian", "hu": "hungarian", "it": "italian", "ja": "japanese", "ko": "korean", "lt": "lithuanian",
    "lv": "latvian", "mt": "maltese", "nb": "norwegian", "nl": "dutch", "nn": "nynorsk", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sk": "slovak", "sl": "slovenian",
    "sv": "swedish", "th": "thai", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}
"""English names of languages, as OpenAI's clients use them."""
# fmt: on
OTHER_NAMES = {"castilian": "es", "flemish": "nl", "moldavian": "ro", "bokmal": "nb", "mandarin": "zh"}
CODES_BY_NAME = {name: code for code, name in ENGLISH_NAMES.items()} | OTHER_NAMES
REPLACED = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "cmn": "zh", "arb": "ar"}
"""Subtags that are replaced: withdrawn ones, and the main language of a group."""
DEFAULT_REGIONS = {("zh", "hans"): "cn", ("zh", "hant"): "tw"}
"""Region of a language with two scripts, by script."""

_LANGUAGE, _EXTENDED = re.compile(r"[a-z]{2,3}"), re.compile(r"[a-z]{3}")
_SCRIPT, _REGION = re.compile(r"[a-z]{4}"), re.compile(r"[a-z]{2}|[0-9]{3}")
_VARIANT = re.compile(r"[a-z0-9]{5,8}|[0-9][a-z0-9]{3}")


class Locale(NamedTuple):
    """Subtags in lower case; empty if missing."""

    language: str
    script: str = ""
    region: str = ""


def parse_locale(name: str) -> Locale | None:
    """Parses en, en_US.UTF-8, zh-Hant-TW, zh-cmn-Hans, de-DE-1996, en-US-u-ca-gregory; None if invalid."""
    normalized = _normalized(name)
    language, *rest = CODES_BY_NAME.get(normalized, normalized).split("-")
    if not _LANGUAGE.fullmatch(language):
        return None
    script = region = ""
    has_variants = False
    for part in rest:
        if len(part) == 1:  # start of an extension or of private subtags
            break
        if _VARIANT.fullmatch(part):
            has_variants = True
        elif has_variants or region:
            return None
        elif _REGION.fullmatch(part):
            region = part
        elif _SCRIPT.fullmatch(part) and not script:
            script = part
        elif not (_EXTENDED.fullmatch(part) and not script):
            return None
    language = CODES.get(language, language)
    return Locale(REPLACED.get(language, language), script, region)


def language_tag(name: str) -> str:
    """The tag of a language name: en for English and eng; other text is returned unchanged."""
    name = name.strip()
    locale = parse_locale(name)
    if locale is None or _normalized(name).split("-")[0] == locale.language:
        return name
    return "-".join(filter(None, locale))


def find_locale(name: str, known: Iterable[str]) -> str | None:
    """The known name that matches a requested one, else None.

    In this order: the same name in any spelling, the same language and region, the language without a region. A
    request without a region matches the first known name of its language.
    """
    candidates = list(known)
    by_spelling = {_normalized(candidate): candidate for candidate in reversed(candidates)}
    if found := by_spelling.get(_normalized(name)):
        return found
    requested = parse_locale(name)
    if requested is None:
        return None
    parsed = [(parse_locale(candidate), candidate) for candidate in candidates]
    same = [(locale, match) for locale, match in parsed if locale and locale.language == requested.language]
    region = requested.region or DEFAULT_REGIONS.get((requested.language, requested.script), "")
    choices = [match for locale, match in same if region and locale.region == region]
    choices += [match for locale, match in same if not locale.region]
    if not requested.region:
        choices += [match for _, match in same]
    return choices[0] if choices else None


def _normalized(name: str) -> str:
    """Lower case with hyphens, without the encoding and the modifier of POSIX."""
    return re.split("[.@]", name.strip(), maxsplit=1)[0].replace("_", "-").lower()
