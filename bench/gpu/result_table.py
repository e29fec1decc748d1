"""What was measured, as a table; what failed, by its name: one section that fails does not end the others."""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Iterator, Sequence

from bench.gpu.device import Spread

__all__ = ["NOTHING", "Told", "milliseconds"]

NOTHING = "–"


class Told:
    def __init__(self, title: str, columns: Sequence[str] = ()) -> None:
        self.title = title
        self.failed = False
        self._columns = columns
        self._rows: list[Sequence[str]] = []
        self._notes: list[str] = []

    def row(self, *cells: str) -> None:
        assert len(cells) == len(self._columns), (cells, self._columns)
        self._rows.append(cells)
        print(f"  {self.title}: " + ", ".join(cells), flush=True)

    def note(self, sentence: str) -> None:
        self._notes.append(sentence)
        print(f"  {self.title}: {sentence}", flush=True)

    def lacks(self, *modules: str) -> bool:
        """Whether some of the modules that the section needs are not on this machine; tells why."""
        why = [error for name in modules if (error := _missing(name))]
        if why:
            self.note(f"Not measured: {'; '.join(why)}. See python -m bench.gpu --help.")
        return bool(why)

    @contextlib.contextmanager
    def failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the rest is to be measured
            traceback.print_exc()
            self.failed = True
            self.note(f"{what} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def __str__(self) -> str:
        lines = [f"**{self.title}**"]
        if self._rows:
            lines += ["", "| " + " | ".join(self._columns) + " |", "|" + "---|" * len(self._columns)]
            lines += ["| " + " | ".join(row) + " |" for row in self._rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self._notes)])


def milliseconds(spread: Spread) -> tuple[str, str]:
    """p50 and p99."""
    return f"{spread.median * 1e3:.2f}", f"{spread.p99 * 1e3:.2f}"


def _missing(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None
