"""Text of clients is made safe for each place that it is sent to."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conure.errors import BadOption
from conure.safe_text import (
    MAX_CLOSE_REASON_BYTES,
    close_reason,
    header_names,
    header_text,
    metadata_text,
    one_line,
    status_text,
)

ANYTHING = st.text(st.characters(), max_size=300) | st.text(st.characters(), max_size=3).map(lambda text: text * 5_000)
"""Lone surrogates, too."""


def is_plain(text: str) -> bool:
    return text.isascii() and (text.isprintable())


@given(ANYTHING)
@example("\ud800")
@example("a\r\nX-Evil: 1\x1b[31m\u202e\x00")
def test_it_fits_its_place(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert line.encode().decode() == line
    assert len(line) <= 10_000
    for header in (header_text(text), metadata_text(text), header_names([text])):
        assert is_plain(header)
        assert header == header.strip()
        assert len(header) <= 1_000
    reason = close_reason(text)
    assert reason.isprintable()
    assert len(reason.encode()) <= MAX_CLOSE_REASON_BYTES
    assert len(status_text(text)) <= 500


@given(st.text(max_size=15))
def test_a_header_can_be_read_back(text: str) -> None:
    meant = " ".join(text.split())
    assert unquote(header_text(meant)) == meant
    assert unquote(header_names([text])) == text


@given(st.lists(st.text(st.characters(), min_size=1, max_size=20), min_size=1, max_size=40))
def test_names_in_a_list_stay_apart(names: list[str]) -> None:
    assert header_names(names).count(", ") == min(len(names), 32) - 1


@pytest.mark.parametrize("text", ["", "plain", "two words, (and) a mark!", "x[] ~ 'y' \"z\" \\"])
def test_safe_text_is_unchanged(text: str) -> None:
    assert one_line(text) == status_text(text) == header_text(text) == close_reason(text) == text


def test_text_is_cut_between_characters() -> None:
    assert close_reason("é" * 200) == "é" * 61
    assert header_text("é" * 500) == "%C3%A9" * 166 + "..."
    assert one_line("x" * 20_000).endswith("...")


def test_errors_carry_one_line() -> None:
    error = BadOption("a\n\x1b[2Jb \ud800", "c\r\nd")
    assert (error.message, error.hint) == (r"a \x1b[2Jb \ud800", "c d")
    assert str(error) == error.message
