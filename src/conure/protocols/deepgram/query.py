"""Parameters of Deepgram's queries: all are texts, and many may be given more than once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from conure.errors import BadOption

__all__ = ["DeepgramQuery"]

YES, NO = ("true", "1", "yes", "on", ""), ("false", "0", "no", "off")
"""A name without a value is a yes."""


class DeepgramQuery:
    """One request's. Names that are not asked for here are no error; `ignored` tells them."""

    def __init__(self, given: Iterable[tuple[str, str]]) -> None:
        """`given`: names and values, such as `request.query_params.multi_items()`."""
        self._given: dict[str, list[str]] = {}
        for name, value in given:
            self._given.setdefault(name, []).append(value.strip())

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def texts(self, name: str) -> list[str]:
        """Each that is not empty."""
        return [value for value in self._given.get(name, ()) if value]

    def text(self, name: str) -> str | None:
        """The last one, None where it is empty or not given."""
        return next(reversed(self.texts(name)), None)

    def flag(self, name: str, default: bool = False) -> bool:
        """Raises BadOption for what is neither a yes nor a no."""
        if name not in self._given:
            return default
        value = self._given[name][-1]
        if value.lower() in YES:
            return True
        if value.lower() in NO:
            return False
        raise BadOption(f"{name} is {value!r}", "it must be true or false")

    def number(self, name: str, default: float) -> float:
        """Raises BadOption for what is no number, or not finite."""
        value = self.text(name)
        return default if value is None else _number(name, value, "it must be a number")

    def whole(self, name: str, default: int) -> int:
        value = self.number(name, default)
        if value != int(value):
            raise BadOption(f"{name} is {value:g}", "it must be a whole number")
        return int(value)

    def milliseconds(self, name: str) -> float | bool | None:
        """A number, or true or false where it is switched on or off; None where it is not given."""
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
        """Whether it was given with anything but a no: some take a yes as well as values of their own."""
        return name in self._given and not _is_off(self._given[name])

    def ignored(self, known: Collection[str]) -> list[str]:
        """Names that were given, other than these, in their order; what was switched off is not missed."""
        return [name for name in self._given if name not in known and self.is_on(name)]


def _is_off(values: list[str]) -> bool:
    return all(value.lower() in ("", *NO) for value in values)


def _number(name: str, value: str, rule: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise BadOption(f"{name} is {value!r}", rule) from None
    if not math.isfinite(number):
        raise BadOption(f"{name} is {value!r}", rule)
    return number
