"""Prints the lowest supported versions of pyproject.toml as requirements, for an environment of the fast tests.

    python -m tools.lowest > requirements.txt

Excludes torch and triton, which these tests do not need, and tools for linting and code generation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("grpc", "mic", "plot", "train")
TEST_PACKAGES = {"hypothesis", "pytest", "pytest-xdist"}
EXCLUDED = {"torch", "triton"}


def lower_bounds() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    yield from map(Requirement, project["dependencies"])
    yield from (Requirement(line) for extra in EXTRAS for line in extras[extra])
    yield from (requirement for requirement in map(Requirement, extras["dev"]) if requirement.name in TEST_PACKAGES)


def pin_lowest(requirement: Requirement) -> str:
    """numpy>=1.26 -> numpy==1.26; raises ValueError without a lower bound."""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}=={bound}{marker}"


if __name__ == "__main__":
    print(*(pin_lowest(requirement) for requirement in lower_bounds() if requirement.name not in EXCLUDED), sep="\n")
