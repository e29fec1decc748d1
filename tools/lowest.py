"""The lowest versions that pyproject.toml promises, a requirement a line, for an environment of the fast tier.

    python -m tools.lowest > requirements.txt

Without torch and triton, which that tier does without, and without what only lints and generates.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("grpc", "mic", "plot", "train")
TESTING = {"hypothesis", "pytest", "pytest-xdist"}
LEFT_OUT = {"torch", "triton"}


def promised() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    yield from map(Requirement, project["dependencies"])
    yield from (Requirement(line) for extra in EXTRAS for line in extras[extra])
    yield from (needed for needed in map(Requirement, extras["dev"]) if needed.name in TESTING)


def lowest(requirement: Requirement) -> str:
    """numpy>=1.26 -> numpy==1.26; raises ValueError where no lower bound is promised."""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}=={bound}{marker}"


if __name__ == "__main__":
    print(*(lowest(found) for found in promised() if found.name not in LEFT_OUT), sep="\n")
