"""What an installation of Conure weighs, and how long it takes to begin.

    python -m bench.footprint [--folder build/footprint] [--starts 5] [--report docs/performance.md]

Builds the wheel, installs it with all it needs into a fresh environment (torch first, as constraints.txt has it), and
lists: sizes on disk by distribution, after what each wrote down in its RECORD; times of imports and of --help; from
`conure serve --model tiny` to ready, and the memory of its processes then. Prints tables.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from statistics import median

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.report import replace_between
from conure.bench.machine import machine_line
from conure.bench.server import start_server

ROOT = Path(__file__).parents[1]
PROJECT, TORCH = "conure", "torch"
IMPORTS = ("conure", "conure.server", "conure.service.recognizer")
SMALL = 2**20
"""Bytes; smaller dependencies share a line."""

Graph = Mapping[str, set[str]]
"""What each distribution needs itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "footprint", help="an environment there stays")
    parser.add_argument("--starts", type=int, default=5, help="of a server, and of whatever is timed")
    parser.add_argument("--report", type=Path, help="a page for the tables, too")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # what is installed is what counts
    os.environ["CONURE_CACHE"] = str(options.folder / "cache")
    wheel = build_wheel(options.folder / "wheel")
    python = install(wheel, options.folder / "environment")
    (packages,) = (options.folder / "environment").glob("lib/python*/site-packages")
    text = "\n\n".join(
        [
            f"{machine_line()}; Python {sys.version.split()[0]}",
            markdown(("what", "itself, MB", "with what it alone brings, MB", "which is"), sizes(wheel, packages)),
            markdown(("what", f"best of {options.starts}, s", "median, s"), times(python, options.starts)),
            markdown(("process of `conure serve --model tiny`", "MB when ready"), memory(python)),
        ]
    )
    print(text)
    if options.report:
        replace_between(options.report, "footprint", text)


def build_wheel(folder: Path) -> Path:
    """Of the working tree."""
    for old in folder.glob("*.whl"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Its Python. Torch comes first: a plain "torch" among the others brings what GPUs need on Linux."""
    python = environment / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    (torch,) = re.findall(rf"^{TORCH}==\S+", constraints.read_text(), re.M)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", torch], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", str(constraints), str(wheel)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel)], check=True)
    return python


def sizes(wheel: Path, packages: Path) -> list[tuple[str, ...]]:
    """The wheel, all that was installed, and each direct dependency: itself, and with what nothing else needs."""
    found = {canonicalize_name(dist.name): dist for dist in distributions(path=[str(packages)])}
    bytes_of = {name: size_of(dist) for name, dist in found.items()}
    graph = graph_of(found.values())
    direct, needed = graph[PROJECT], closure(graph, graph[PROJECT])
    brought = {name: needed - closure(graph, direct - {name}) for name in direct}
    large = sorted((name for name in direct if bytes_of[name] >= SMALL), key=lambda name: -bytes_of[name])
    small = sorted(direct - set(large))
    shared = sorted(needed - direct - {other for others in brought.values() for other in others})

    def megabytes(names: Iterable[str]) -> str:
        return f"{sum(bytes_of[name] for name in names) / 1e6:.1f}"

    return [
        ("wheel", f"{wheel.stat().st_size / 1e6:.1f}", "", ""),
        (f"`{PROJECT}`", megabytes([PROJECT]), megabytes(needed | {PROJECT}), "everything"),
        *(
            (f"`{name}`", megabytes([name]), megabytes(brought[name]), _others(brought[name] - {name}))
            for name in large
        ),
        (", ".join(small), megabytes(small), megabytes({other for name in small for other in brought[name]}), ""),
        (f"needed by several of them: {', '.join(shared)}", megabytes(shared), "", ""),
    ]


def size_of(dist: Distribution) -> int:
    """Bytes on disk of what its RECORD lists."""
    paths = [Path(str(dist.locate_file(file))) for file in dist.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def graph_of(dists: Iterable[Distribution]) -> Graph:
    """From the project on, with the extras that are asked for. What is not installed is not needed here."""
    requirements = {canonicalize_name(dist.name): [*map(Requirement, dist.requires or ())] for dist in dists}
    graph: dict[str, set[str]] = {name: set() for name in requirements}
    waiting, seen = [(PROJECT, "")], set()
    while waiting:
        name, extra = waiting.pop()
        seen.add((name, extra))
        for requirement in requirements[name]:
            needed, marker = canonicalize_name(requirement.name), requirement.marker
            if needed in graph and (marker is None or marker.evaluate({"extra": extra})):
                graph[name].add(needed)
                waiting += {(needed, asked) for asked in ("", *requirement.extras)} - seen
    return graph


def closure(graph: Graph, names: Iterable[str]) -> set[str]:
    """Those and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph[name]
    return found


def times(python: Path, runs: int) -> list[tuple[str, ...]]:
    """Seconds, the best and the median; the first of each, which fills the caches of the system, is not counted."""
    found = {f"`import {name}`": _timed(lambda name=name: _import(python, name), runs) for name in IMPORTS}
    found["`conure --help`, the process"] = _timed(lambda: _wall([python, "-m", "conure", "--help"]), runs)
    found["`conure serve --help`, the process"] = _timed(
        lambda: _wall([python, "-m", "conure", "serve", "--help"]), runs
    )
    found["`conure serve --model tiny` to ready"] = _timed(lambda: _start(python), runs)
    return [(name, f"{min(seconds):.2f}", f"{median(seconds):.2f}") for name, seconds in found.items()]


def memory(python: Path) -> list[tuple[str, ...]]:
    with start_server(["--model", "tiny"], python=str(python)) as server:
        return [(name, f"{size / 1e6:.0f}") for name, size in server.memory().items()]


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def _others(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _timed(measure: Callable[[], float], runs: int) -> list[float]:
    measure()
    return [measure() for _ in range(runs)]


def _import(python: Path, module: str) -> float:
    code = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    return float(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def _wall(command: list[str | Path]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _start(python: Path) -> float:
    begin = time.perf_counter()
    with start_server(["--model", "tiny"], python=str(python)):
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
