"""Words without marks and capitals."""

from __future__ import annotations

import pytest

from conure.text.bare import bare


@pytest.mark.parametrize(
    ("written", "said"),
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
def test_marks_and_capitals_go(written: str, said: str) -> None:
    assert bare(written) == said
