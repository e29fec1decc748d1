"""Tables of results. A failure is noted in the table and does not stop the other measurements."""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Iterator, Sequence

from bench.gpu.device import Spread

__all__ = ["NOTHING", "ResultTable", "milliseconds"]

NOTHING = "–"


class ResultTable:
    def __init__(self, title: str, columns: Sequence[str] = ()) -> None:
        self.title = title
        self.failed = False
        self._columns = columns
        self._rows: list[Sequence[str]] = []
        self._notes: list[str] = []

    def add_row(self, *cells: str) -> None:
        assert len(cells) == len(self._columns), (cells, self._columns)
        self._rows.append(cells)
        print(f"  {self.title}: " + ", ".join(cells), flush=True)

    def add_note(self, note: str) -> None:
        self._notes.append(note)
        print(f"  {self.title}: {note}", flush=True)

    def lacks_modules(self, *modules: str) -> bool:
        """Whether modules that the section needs cannot be imported; adds a note if so."""
        errors = [error for name in modules if (error := _import_error(name))]
        if errors:
            self.add_note(f"Not measured: {'; '.join(errors)}. See python -m bench.gpu --help.")
        return bool(errors)

    @contextlib.contextmanager
    def record_failures(self, name: str) -> Iterator[None]:
        """Suppresses an exception of the block and adds a note about it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self.add_note(f"{name} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def __str__(self) -> str:
        lines = [f"**{self.title}**"]
        if self._rows:
            lines += ["", "| " + " | ".join(self._columns) + " |", "|" + "---|" * len(self._columns)]
            lines += ["| " + " | ".join(row) + " |" for row in self._rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self._notes)])


def milliseconds(spread: Spread) -> tuple[str, str]:
    """p50 and p99."""
    return f"{spread.median * 1e3:.2f}", f"{spread.p99 * 1e3:.2f}"


def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None
