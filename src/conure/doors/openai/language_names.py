"""Languages by their English names, as OpenAI answers them."""

from __future__ import annotations

__all__ = ["code_of", "name_of"]

# fmt: off
NAMES = {
    "ar": "arabic", "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi",
    "hr": "croatian", "hu": "hungarian", "it": "italian", "ja": "japanese", "ko": "korean", "lt": "lithuanian",
    "lv": "latvian", "mt": "maltese", "nb": "norwegian", "nl": "dutch", "nn": "nynorsk", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sk": "slovak", "sl": "slovenian",
    "sv": "swedish", "th": "thai", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}
# fmt: on


def code_of(language: str) -> str:
    """en-US -> en."""
    return language.replace("_", "-").split("-")[0].lower()


def name_of(code: str) -> str:
    """en -> english; a code that has no name here is its own."""
    return NAMES.get(code, code)
