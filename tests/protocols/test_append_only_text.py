"""What clients add up to a text."""

from __future__ import annotations

from conure.protocols.append_only_text import AppendOnlyText


def test_pieces_add_up() -> None:
    growing = AppendOnlyText()
    texts = ["turn", "turn", "turn on", "turn on the", "turn on the lights"]
    assert [growing.more(text) for text in texts] == ["turn", "", " on", " the", " lights"]
    assert growing.told == "turn on the lights"


def test_what_was_told_stays() -> None:
    growing = AppendOnlyText()
    growing.more("turn on")
    assert growing.more("turn off") == growing.more("") == ""
    assert growing.more("turn on it") == " it"
