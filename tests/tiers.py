"""What a file of tests needs, told by what it imports: before it is imported, so that the fast tier imports no torch.

Followed are imports at the top of modules of ours, wherever they lead; what a function imports is not seen. A test that
needs more than its file shows carries the mark by hand.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FAST", "NEEDS", "needs"]

ROOT = Path(__file__).parents[1]
PLACES = {"conure": ROOT / "src", "tests": ROOT, "bench": ROOT, "tools": ROOT}
FAST = "fast"
NEEDS = ("torch", "server", "process")
"""Marks; a test without any is fast."""
TORCH = {"torch", "conure.engine.backends.registry", "conure.engine.backends.torch_eager.open"}
"""The second loads it where a model has to be converted."""
SERVERS = {"tests.protocols.servers", "conure.bench.server", "conure.bench.batch_bench"}
PROCESSES = {"subprocess", "multiprocessing"}


def needs(path: Path) -> frozenset[str]:
    """Marks of a file of tests, of NEEDS."""
    every = {name for file in _files(path) for name in _imports(file)}
    own = {name for file in _files(path, tests=True) for name in _imports(file)}
    found = {
        "torch": not every.isdisjoint(TORCH),
        "server": not own.isdisjoint(SERVERS),
        "process": not own.isdisjoint(PROCESSES),
    }
    return frozenset(mark for mark, is_needed in found.items() if is_needed)


def _files(path: Path, *, tests: bool = False) -> set[Path]:
    """Files of ours that are imported with one, and it; where `tests`, those below `tests/` alone."""
    found, waiting = set[Path](), [path]
    while waiting:
        file = waiting.pop()
        if file in found or (tests and file != path and not file.is_relative_to(ROOT / "tests")):
            continue
        found.add(file)
        waiting += _ours(file)
    return found


@functools.cache
def _ours(file: Path) -> tuple[Path, ...]:
    return tuple(path for name in _imports(file) for path in _modules(name))


@functools.cache
def _modules(name: str) -> tuple[Path, ...]:
    """Files that an import of this name runs: that of the module, and those of the packages above it."""
    root = PLACES.get(name.split(".", maxsplit=1)[0])
    if root is None:
        return ()
    place = root.joinpath(*name.split("."))
    above = _modules(name.rpartition(".")[0]) if "." in name else ()
    return (*above, *(path for path in (place / "__init__.py", place.with_suffix(".py")) if path.exists()))


@functools.cache
def _imports(file: Path) -> tuple[str, ...]:
    """Names that a file imports when it is imported itself; of `from a import b` also a.b, which may be a module."""
    return tuple(_names(ast.parse(file.read_bytes()).body, file))


def _names(body: list[ast.stmt], file: Path) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            above = _package(file, statement.level) if statement.level else []
            module = ".".join([*above, *([statement.module] if statement.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(statement.test):
                yield from _names(statement.body, file)
            yield from _names(statement.orelse, file)
        elif isinstance(statement, ast.Try | ast.With):
            yield from _names(statement.body, file)


def _package(file: Path, level: int) -> list[str]:
    """Names of the package that a relative import begins at."""
    root = ROOT / "src" if file.is_relative_to(ROOT / "src") else ROOT
    return list(file.relative_to(root).parts[:-level])
