"""What distributions cost, read from a folder of packages as an installer leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import pytest

from bench.footprint import closure, graph_of, markdown, size_of, sizes

MEGA = 10**6


def put(packages: Path, name: str, size: int, requires: Sequence[str] = ()) -> None:
    """A distribution of one file, and one that its RECORD lists and that is gone."""
    info = packages / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir()
    (packages / f"{name}.py").write_bytes(b"#" * size)
    lines = [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1", *lines, "", ""]))
    (info / "RECORD").write_text(f"{name}.py,,{size}\n{name}_gone.py,,5\n")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    put(tmp_path, "conure", 1 * MEGA, ["Heavy_One>=2", "light", "web[fast]", "absent; python_version<'3'", "nobody"])
    put(tmp_path, "heavy-one", 30 * MEGA, ["shared", "only-heavy"])
    put(tmp_path, "only-heavy", 4 * MEGA)
    put(tmp_path, "light", 1000, ["shared", "never; extra == 'more'"])
    put(tmp_path, "web", 2 * MEGA, ["quick; extra == 'fast'"])
    put(tmp_path, "quick", 3 * MEGA, ["only-heavy; extra == 'unasked'"])
    put(tmp_path, "shared", 5 * MEGA)
    put(tmp_path, "never", 9 * MEGA)
    return tmp_path


def test_dependencies_follow_requested_extras(packages: Path) -> None:
    graph = graph_of(distributions(path=[str(packages)]))
    assert graph["conure"] == {"heavy-one", "light", "web"}
    assert (graph["web"], graph["light"], graph["quick"]) == ({"quick"}, {"shared"}, set())
    assert closure(graph, {"heavy-one"}) == {"heavy-one", "shared", "only-heavy"}


def test_a_size_counts_existing_files(packages: Path) -> None:
    (dist,) = distributions(name="only-heavy", path=[str(packages)])
    assert size_of(dist) == 4 * MEGA


def test_a_dependency_costs_what_only_it_requires(packages: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "conure.whl"
    wheel.write_bytes(b"0" * 500_000)
    assert sizes(wheel, packages) == [
        ("wheel", "0.5", "", ""),
        ("`conure`", "1.0", "45.0", "everything"),
        ("`heavy-one`", "30.0", "34.0", "only-heavy"),
        ("`web`", "2.0", "5.0", "quick"),
        ("light", "0.0", "0.0", ""),
        ("needed by several of them: shared", "5.0", "", ""),
    ]


def test_a_table() -> None:
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
