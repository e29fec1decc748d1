"""What clients add up to a text."""

from __future__ import annotations

from conure.doors.growing import Growing


def test_pieces_add_up() -> None:
    growing = Growing()
    texts = ["turn", "turn", "turn on", "turn on the", "turn on the lights"]
    assert [growing.more(text) for text in texts] == ["turn", "", " on", " the", " lights"]
    assert growing.told == "turn on the lights"


def test_what_was_told_stays() -> None:
    growing = Growing()
    growing.more("turn on")
    assert growing.more("turn off") == growing.more("") == ""
    assert growing.more("turn on it") == " it"
