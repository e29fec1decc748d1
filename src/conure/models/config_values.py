"""Values of config files that strangers wrote: of the kind and size that they should be, or refused by their name.

Whatever a value is, an error shows it in one short line: it may be nested ten thousand deep, hold itself many times
over, or be a number of a million digits.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from conure.errors import BadCheckpoint

__all__ = [
    "MAX_CONTEXT",
    "MAX_CONTEXTS",
    "MAX_DURATION",
    "MAX_FFT",
    "MAX_GLOBAL_STEPS",
    "MAX_PROMPTS",
    "MAX_SYMBOLS",
    "MAX_WINDOW",
    "flag",
    "language_slots",
    "number",
    "short_repr",
    "first_few",
    "whole",
    "wholes",
]

# More than these no network has, and what is made of them takes memory: tables, caches, windows.
MAX_CONTEXT = 2**14
"""Encoder steps to one side, 22 minutes."""
MAX_WINDOW = 2**11
"""The same of local attention, which makes blocks of them."""
MAX_CONTEXTS = 1_000
MAX_GLOBAL_STEPS = 2**12
MAX_FFT = 2**16
MAX_SYMBOLS = 1_000
MAX_DURATION = 1_000
MAX_PROMPTS = 2**14
MAX_NAME = 100
"""Characters in the name of a language."""

SHOWN, LISTED = 80, 4

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 60, 60


def short_repr(value: Any) -> str:
    """A value for an error's line."""
    try:
        text = _repr.repr(value)
    except ValueError:  # a number of too many digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def first_few(names: Any) -> str:
    """The first few of many names, for a message of one line."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(_short(str(name)) for name in names[:LISTED]) + more


def _short(name: str) -> str:
    return name if name.isprintable() and len(name) <= SHOWN else short_repr(name)


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number within bounds; one that is written as 3.0 is one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        wanted = f"a whole number from {least} to {most}" if least < most else f"{least}"
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be {wanted}")
    return value


def number(value: Any, name: str, least: float, most: float) -> float:
    """A number within bounds; YAML's readers give 1e-05 as text."""
    try:
        found = (
            float(value) if type(value) in (int, float) or (isinstance(value, str) and len(value) < SHOWN) else math.nan
        )
    except (ValueError, OverflowError):
        found = math.nan
    if not least <= found <= most:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be a number from {least:g} to {most:g}")
    return found


def flag(value: Any, name: str) -> bool:
    """True or false; a null is false."""
    if value is not None and type(value) is not bool:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be true or false")
    return bool(value)


def wholes(value: Any, name: str, least: int, most: int, longest: int) -> list[int]:
    """A list of whole numbers."""
    if not isinstance(value, list) or len(value) > longest:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be a list of at most {longest} whole numbers")
    return [whole(one, name, least, most) for one in value]


def language_slots(value: Any, name: str) -> tuple[tuple[str, int], ...]:
    """Names of languages and their slots of the prompt."""
    if not isinstance(value, Mapping) or len(value) > MAX_PROMPTS:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should give numbers to languages")
    for language in value:
        if not isinstance(language, str) or not language.isprintable() or not 0 < len(language) <= MAX_NAME:
            raise BadCheckpoint(f"{name} has the language {short_repr(language)}, which is no name")
    return tuple((language, whole(slot, f"{name}.{language}", 0, MAX_PROMPTS)) for language, slot in value.items())
