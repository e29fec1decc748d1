"""Size on disk and start-up time of an installation of Conure.

    python -m bench.footprint [--folder build/footprint] [--starts 5] [--report docs/performance.md]

Builds the wheel, installs it with its dependencies into a new environment (torch first, pinned by constraints.txt), and
prints tables: sizes of distributions by their RECORD; times of imports and of --help; time from
`conure serve --model tiny` to ready, and the memory of its processes.
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
"""Bytes; smaller dependencies share a row."""

Graph = Mapping[str, set[str]]
"""Direct dependencies of each distribution."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "footprint", help="an existing environment is reused"
    )
    parser.add_argument("--starts", type=int, default=5, help="repetitions of each measured start")
    parser.add_argument("--report", type=Path, help="page to write the tables to as well")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # measure the installation, not the working tree
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
    """The wheel of the working tree."""
    for old in folder.glob("*.whl"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Python of the environment. Installs torch first, since an unpinned torch would bring CUDA packages on Linux."""
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
    """Sizes of the wheel, of everything, and of each direct dependency: alone, and with what only it requires."""
    results = {canonicalize_name(dist.name): dist for dist in distributions(path=[str(packages)])}
    bytes_of = {name: size_of(dist) for name, dist in results.items()}
    graph = graph_of(results.values())
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
    """Bytes on disk of the files in its RECORD."""
    paths = [Path(str(dist.locate_file(file))) for file in dist.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def graph_of(dists: Iterable[Distribution]) -> Graph:
    """Dependencies from the project on, with requested extras. Distributions that are not installed are left out."""
    requirements = {canonicalize_name(dist.name): [*map(Requirement, dist.requires or ())] for dist in dists}
    graph: dict[str, set[str]] = {name: set() for name in requirements}
    pending, seen = [(PROJECT, "")], set()
    while pending:
        name, extra = pending.pop()
        seen.add((name, extra))
        for requirement in requirements[name]:
            needed, marker = canonicalize_name(requirement.name), requirement.marker
            if needed in graph and (marker is None or marker.evaluate({"extra": extra})):
                graph[name].add(needed)
                pending += {(needed, wanted_extra) for wanted_extra in ("", *requirement.extras)} - seen
    return graph


def closure(graph: Graph, names: Iterable[str]) -> set[str]:
    """These distributions and all their dependencies."""
    results: set[str] = set()
    pending = list(names)
    while pending:
        if (name := pending.pop()) not in results:
            results.add(name)
            pending += graph[name]
    return results


def times(python: Path, runs: int) -> list[tuple[str, ...]]:
    """Best and median seconds; the first run, which fills the caches of the system, is not counted."""
    results = {f"`import {name}`": _timed(lambda name=name: _import(python, name), runs) for name in IMPORTS}
    results["`conure --help`, the process"] = _timed(lambda: _wall([python, "-m", "conure", "--help"]), runs)
    results["`conure serve --help`, the process"] = _timed(
        lambda: _wall([python, "-m", "conure", "serve", "--help"]), runs
    )
    results["`conure serve --model tiny` to ready"] = _timed(lambda: _start(python), runs)
    return [(name, f"{min(seconds):.2f}", f"{median(seconds):.2f}") for name, seconds in results.items()]


def memory(python: Path) -> list[tuple[str, ...]]:
    with start_server(["--model", "tiny"], python=str(python)) as server:
        return [(name, f"{size / 1e6:.0f}") for name, size in server.memory().items()]


def markdown(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows))


def _others(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _timed(measure: Callable[[], float], runs: int) -> list[float]:
    measure()
    return [measure() for _ in range(runs)]


def _import(python: Path, module: str) -> float:
    code = f"import time; started_at = time.perf_counter(); import {module}; print(time.perf_counter() - started_at)"
    return float(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def _wall(command: list[str | Path]) -> float:
    started_at = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_at


def _start(python: Path) -> float:
    started_at = time.perf_counter()
    with start_server(["--model", "tiny"], python=str(python)):
        return time.perf_counter() - started_at


if __name__ == "__main__":
    main()
