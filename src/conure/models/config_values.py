"""Validation of values from untrusted config files: type and range are checked, errors name the setting.

An error shows any value in one short line, even one that is nested ten thousand levels deep, contains itself, or is a
number of a million digits.
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
    "boolean",
    "language_slots",
    "number",
    "short_repr",
    "first_few",
    "integer",
    "integers",
]

# Limits far above those of real networks: tables, caches and windows of these sizes take memory.
MAX_CONTEXT = 2**14
"""Encoder steps to one side, 22 minutes."""
MAX_WINDOW = 2**11
"""Encoder steps to one side with local attention, which computes in blocks of this size."""
MAX_CONTEXTS = 1_000
MAX_GLOBAL_STEPS = 2**12
MAX_FFT = 2**16
MAX_SYMBOLS = 1_000
MAX_DURATION = 1_000
MAX_PROMPTS = 2**14
MAX_NAME = 100
"""Characters in the name of a language."""

MAX_SHOWN_LENGTH, MAX_LISTED = 80, 4

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 60, 60


def short_repr(value: Any) -> str:
    """A value in one short line, for an error message."""
    try:
        text = _repr.repr(value)
    except ValueError:  # a number of too many digits
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN_LENGTH else text[:MAX_SHOWN_LENGTH] + "..."


def first_few(names: Any) -> str:
    """The first names of a list and how many more there are, for an error message."""
    names = list(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(_short(str(name)) for name in names[:MAX_LISTED]) + more


def _short(name: str) -> str:
    return name if name.isprintable() and len(name) <= MAX_SHOWN_LENGTH else short_repr(name)


def integer(value: Any, name: str, minimum: int, maximum: int) -> int:
    """A whole number within bounds; 3.0 is accepted."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not minimum <= value <= maximum:
        expected = f"a whole number from {minimum} to {maximum}" if minimum < maximum else f"{minimum}"
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be {expected}")
    return value


def number(value: Any, name: str, minimum: float, maximum: float) -> float:
    """A number within bounds; text is accepted because YAML readers return 1e-05 as text."""
    try:
        found = (
            float(value)
            if type(value) in (int, float) or (isinstance(value, str) and len(value) < MAX_SHOWN_LENGTH)
            else math.nan
        )
    except (ValueError, OverflowError):
        found = math.nan
    if not minimum <= found <= maximum:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be a number from {minimum:g} to {maximum:g}")
    return found


def boolean(value: Any, name: str) -> bool:
    """A boolean; null means false."""
    if value is not None and type(value) is not bool:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should be true or false")
    return bool(value)


def integers(value: Any, name: str, minimum: int, maximum: int, max_length: int) -> list[int]:
    """A list of at most `max_length` whole numbers within bounds."""
    if not isinstance(value, list) or len(value) > max_length:
        raise BadCheckpoint(
            f"{name} is {short_repr(value)} and should be a list of at maximum {max_length} integer numbers"
        )
    return [integer(item, name, minimum, maximum) for item in value]


def language_slots(value: Any, name: str) -> tuple[tuple[str, int], ...]:
    """Names of languages and their slots in the language prompt."""
    if not isinstance(value, Mapping) or len(value) > MAX_PROMPTS:
        raise BadCheckpoint(f"{name} is {short_repr(value)} and should map languages to numbers")
    for language in value:
        if not isinstance(language, str) or not language.isprintable() or not 0 < len(language) <= MAX_NAME:
            raise BadCheckpoint(f"{name} has an invalid language name: {short_repr(language)}")
    return tuple((language, integer(slot, f"{name}.{language}", 0, MAX_PROMPTS)) for language, slot in value.items())
