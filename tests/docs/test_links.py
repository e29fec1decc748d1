"""Links, paths, modules and make targets in the documentation exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = (ROOT, ROOT / "src" / "conure", ROOT / "page" / "src", ROOT / "docs")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/[\w.-]+\.(?:csv|hpp|js|md|png|py|sh|toml|ts|tsx|txt|yml))`")
FOLDER = re.compile(r"`((?:[\w-]+/)+)`")
MODULE = re.compile(r"python -m ((?:bench|tests|tools)[\w.]*)")
TARGET = re.compile(r"`make ([a-z-]+)")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    missing = [link for link in _links(page) if not _is_target(page, link)]
    assert not missing


@pages
def test_files_in_backticks_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in FILE.findall(text) if not any((folder / path).is_file() for folder in FOLDERS)]
    assert not missing


def test_folders_in_backticks_exist_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [path for path in FOLDER.findall(text) if not any((folder / path).is_dir() for folder in FOLDERS)]
    assert not missing


@pages
def test_modules_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    modules = [name for name in MODULE.findall(text) if not _is_module(name.rstrip("."))]
    targets = [name for name in TARGET.findall(text) if f"\n{name}:" not in makefile]
    assert not modules
    assert not targets


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    decisions = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{3}-[\w-]+\.md)\)", index) == decisions
    assert [int(name[:3]) for name in decisions] == list(range(1, len(decisions) + 1))


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_decision_has_its_four_parts(path: Path) -> None:
    headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Reason", "Consequence"]


def _links(page: Path) -> Iterator[str]:
    for found in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        link = found[0] or found[1]
        if not re.match(r"[a-z]+:", link):
            yield link


def _is_target(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not anchor or anchor in _anchors(target)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def _is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
