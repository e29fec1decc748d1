"""Pages of the reference agree with the code."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from conure import metrics
from conure.protocols.error_codes import ERROR_CODES
from conure.settings import Settings
from tests.cli.test_help import KEYS, MODELS, PAGES
from tools import reference

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_OTHERS = {"--server", "--use-fake-audio-capture", "--use-file-for-fake-audio-capture"}
"""Options of other programs."""


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.stem)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    assert reference.render_page(page) == page.read_text(encoding="utf-8"), "run: python -m tools.reference"


def test_every_setting_metric_and_error_has_a_row() -> None:
    _, settings, metric_page, errors = (page.read_text(encoding="utf-8") for page in reference.PAGES)
    assert set(Settings.model_fields) <= set(re.findall(r"^\| `(\w+)` \| `CONURE_", settings, re.MULTILINE))
    names = {
        line.split()[2] for line in metrics.render(metrics.collect()).decode().splitlines() if line.startswith("# TYPE")
    }
    rows = set(re.findall(r"^\| `(conure_\w+)` \| (?:counter|gauge|histogram)", metric_page, re.MULTILINE))
    assert rows == {name for name in names if not name.endswith("_created")}
    codes = set(re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE))
    assert codes == (ERROR_CODES.keys() - reference.FAMILIES) | {"internal"}


def test_every_command_with_options_has_a_table() -> None:
    text = reference.PAGES[0].read_text(encoding="utf-8")
    commands = {page for page in PAGES if page and page not in {*MODELS[:3], KEYS[0], *KEYS[2:], "doctor"}}
    assert commands <= set(re.findall(r"<!-- generated: options (.+?) -->", text))


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_examples_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"\bconure ([a-z][^\n`|#]*)", text):
        command = next((name for name in sorted(PAGES, key=len, reverse=True) if name and line.startswith(name)), "")
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line))
        assert not command or options <= _options(command), line
    options = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert options <= _options("") | OF_OTHERS


@functools.cache
def _options(command: str) -> set[str]:
    """Of a command and those below it."""
    return set().union(*(reference.option_names(page) for page in PAGES if page and page.startswith(command)))
