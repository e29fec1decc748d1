"""Text in lower case without punctuation."""

from __future__ import annotations

import pytest

from conure.text.lexical_form import lexical_form


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Hello, world!", "hello world"),
        ("It's 3.5%, isn't it?", "it's 3.5% isn't it"),
        ("¿Qué? «Nada» … -- U.S.", "qué nada u.s"),
        ("今日は。元気？", "今日は 元気"),
        ("", ""),
        ("Hello,", "hello"),
        ("“Don’t!”", "don’t"),
        ("U.S.", "u.s"),
        ("50%.", "50%"),
        ("—", ""),
        ("¿Qué?", "qué"),
        ("$5", "$5"),
    ],
)
def test_marks_and_capitals_are_removed(written: str, expected: str) -> None:
    assert lexical_form(written) == expected
