"""Tests of `AppendOnlyText`."""

from __future__ import annotations

from conure.protocols.append_only_text import AppendOnlyText


def test_new_parts_add_up() -> None:
    growing = AppendOnlyText()
    texts = ["turn", "turn", "turn on", "turn on the", "turn on the lights"]
    assert [growing.append(text) for text in texts] == ["turn", "", " on", " the", " lights"]
    assert growing.sent == "turn on the lights"


def test_sent_text_is_not_revised() -> None:
    growing = AppendOnlyText()
    growing.append("turn on")
    assert growing.append("turn off") == growing.append("") == ""
    assert growing.append("turn on it") == " it"
