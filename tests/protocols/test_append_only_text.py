"""What clients add up to a text."""

from __future__ import annotations

from conure.protocols.append_only_text import AppendOnlyText


def test_pieces_add_up() -> None:
    growing = AppendOnlyText()
    texts = ["turn", "turn", "turn on", "turn on the", "turn on the lights"]
    assert [growing.advance(text) for text in texts] == ["turn", "", " on", " the", " lights"]
    assert growing.sent == "turn on the lights"


def test_what_was_told_stays() -> None:
    growing = AppendOnlyText()
    growing.advance("turn on")
    assert growing.advance("turn off") == growing.advance("") == ""
    assert growing.advance("turn on it") == " it"
