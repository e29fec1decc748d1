"""Every help page: two examples at its end, defaults shown."""

from __future__ import annotations

import re

import pytest

from conure.settings import Settings
from tests.cli.conftest import Call

MODELS = ["models", "models pull", "models info", "models convert"]
KEYS = ["keys", "keys add", "keys list", "keys remove"]
PAGES = ["", "transcribe", "serve", "listen", "stream", *MODELS, *KEYS, "bench", "bench live", "bench clips", "doctor"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_ends_with_two_examples(call: Call, page: str) -> None:
    done = call(*page.split(), "--help")
    assert done.code == 0
    heading, first, second = done.out.rstrip().splitlines()[-3:]
    assert heading == "Examples:"
    assert first.startswith(f"  conure {page}".rstrip())
    assert second.startswith(f"  conure {page}".rstrip())


def test_defaults_are_those_of_the_settings(call: Call) -> None:
    page = " ".join(call("transcribe", "--help").out.replace("│", " ").split())
    for name in ("model", "device", "runner", "max_hours"):
        assert f"[default: {Settings.model_fields[name].default}]" in page
    for name in ("model", "device", "language"):
        assert str(Settings.model_fields[name].description) in page


def test_version(call: Call) -> None:
    assert re.fullmatch(r"conure \d+\.\d+\.\d+.*\n", call("--version").out)


def test_without_a_command_the_help_is_shown(call: Call) -> None:
    assert call().out == call("--help").out
    assert call("dance").code == 2
