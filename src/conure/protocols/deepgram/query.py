"""Query parameters in Deepgram's style: strings, many of which may be repeated."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from conure.errors import BadOption

__all__ = ["DeepgramQuery"]

TRUE, FALSE = ("true", "1", "yes", "on", ""), ("false", "0", "no", "off")
"""A name without a value counts as true."""


class DeepgramQuery:
    """The query of one request. Unknown names are not an error; `ignored` lists them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """`pairs`: names and values, such as `request.query_params.multi_items()`."""
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.strip())

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def texts(self, name: str) -> list[str]:
        """Returns all non-empty values."""
        return [value for value in self._values.get(name, ()) if value]

    def text(self, name: str) -> str | None:
        """Returns the last non-empty value, or None."""
        return next(reversed(self.texts(name)), None)

    def flag(self, name: str, default: bool = False) -> bool:
        """Raises BadOption for a value that is not a boolean."""
        if name not in self._values:
            return default
        value = self._values[name][-1]
        if value.lower() in TRUE:
            return True
        if value.lower() in FALSE:
            return False
        raise BadOption(f"{name} is {value!r}", "it must be true or false")

    def number(self, name: str, default: float) -> float:
        """Raises BadOption for a value that is not a finite number."""
        value = self.text(name)
        return default if value is None else _number(name, value, "it must be a number")

    def whole(self, name: str, default: int) -> int:
        value = self.number(name, default)
        if value != int(value):
            raise BadOption(f"{name} is {value:g}", "it must be a whole number")
        return int(value)

    def milliseconds(self, name: str) -> float | bool | None:
        """Returns a number, or True/False for an on/off value, or None if not given."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        milliseconds = _number(name, value, "it must be true, false or a number of milliseconds")
        if milliseconds < 0:
            raise BadOption(f"{name} is {value!r}", "it must not be negative")
        return milliseconds

    def is_on(self, name: str) -> bool:
        """Whether any value other than false was given; some parameters take `true` or a value."""
        return name in self._values and not _are_all_off(self._values[name])

    def ignored(self, known: Collection[str]) -> list[str]:
        """Returns the given names that are not in `known`, in order, without those that are off."""
        return [name for name in self._values if name not in known and self.is_on(name)]


def _are_all_off(values: list[str]) -> bool:
    return all(value.lower() in ("", *FALSE) for value in values)


def _number(name: str, value: str, rule: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise BadOption(f"{name} is {value!r}", rule) from None
    if not math.isfinite(number):
        raise BadOption(f"{name} is {value!r}", rule)
    return number
