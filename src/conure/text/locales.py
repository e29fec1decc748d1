"""Names of languages as people and programs write them (BCP 47), and which of some names is meant."""

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
"""Codes of three letters (ISO 639-2) for languages that have one of two."""
ENGLISH_NAMES = {
    "ar": "arabic", "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi",
    "hr": "croatian", "hu": "hungarian", "it": "italian", "ja": "japanese", "ko": "korean", "lt": "lithuanian",
    "lv": "latvian", "mt": "maltese", "nb": "norwegian", "nl": "dutch", "nn": "nynorsk", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sk": "slovak", "sl": "slovenian",
    "sv": "swedish", "th": "thai", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}
"""Their English names, as OpenAI's clients write them."""
# fmt: on
OTHERS = {"castilian": "es", "flemish": "nl", "moldavian": "ro", "bokmal": "nb", "mandarin": "zh"}
NAMED = {name: code for code, name in ENGLISH_NAMES.items()} | OTHERS
OLDER = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "cmn": "zh", "arb": "ar"}
"""Subtags that mean another one: withdrawn ones, and the main language of a group."""
USUAL_REGIONS = {("zh", "hans"): "cn", ("zh", "hant"): "tw"}
"""Where a script is written, for languages that are written in two."""

_LANGUAGE, _EXTENDED = re.compile(r"[a-z]{2,3}"), re.compile(r"[a-z]{3}")
_SCRIPT, _REGION = re.compile(r"[a-z]{4}"), re.compile(r"[a-z]{2}|[0-9]{3}")
_VARIANT = re.compile(r"[a-z0-9]{5,8}|[0-9][a-z0-9]{3}")


class Locale(NamedTuple):
    """In lower case; empty where the name does not tell."""

    language: str
    script: str = ""
    region: str = ""


def parse_locale(name: str) -> Locale | None:
    """Of en, en_US.UTF-8, zh-Hant-TW, zh-cmn-Hans, de-DE-1996, en-US-u-ca-gregory; None of what is no such name."""
    spelled = _spelled(name)
    language, *rest = NAMED.get(spelled, spelled).split("-")
    if not _LANGUAGE.fullmatch(language):
        return None
    script = region = ""
    variants = False
    for part in rest:
        if len(part) == 1:  # an extension follows, or what is private
            break
        if _VARIANT.fullmatch(part):
            variants = True
        elif variants or region:
            return None
        elif _REGION.fullmatch(part):
            region = part
        elif _SCRIPT.fullmatch(part) and not script:
            script = part
        elif not (_EXTENDED.fullmatch(part) and not script):
            return None
    language = CODES.get(language, language)
    return Locale(OLDER.get(language, language), script, region)


def language_tag(name: str) -> str:
    """The tag that a name of a language stands for: en of English and of eng; what is none is left as it is."""
    name = name.strip()
    locale = parse_locale(name)
    if locale is None or _spelled(name).split("-")[0] == locale.language:
        return name
    return "-".join(filter(None, locale))


def find_locale(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that another name means, else None.

    It is the name itself in any spelling, else the same language and region, else the language without a region;
    a name without a region means the first known one of its language.
    """
    names = list(known)
    spelled = {_spelled(one): one for one in reversed(names)}
    if found := spelled.get(_spelled(name)):
        return found
    asked = parse_locale(name)
    if asked is None:
        return None
    same = [(locale, one) for one in names if (locale := parse_locale(one)) and locale.language == asked.language]
    region = asked.region or USUAL_REGIONS.get((asked.language, asked.script), "")
    choices = [one for locale, one in same if region and locale.region == region]
    choices += [one for locale, one in same if not locale.region]
    if not asked.region:
        choices += [one for _, one in same]
    return choices[0] if choices else None


def _spelled(name: str) -> str:
    """In one spelling; what POSIX adds of encodings and modifiers is left out."""
    return re.split("[.@]", name.strip(), maxsplit=1)[0].replace("_", "-").lower()
