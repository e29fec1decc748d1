"""The TypeScript client has the messages that the server has."""

from __future__ import annotations

from tools import typescript


def test_the_types_are_up_to_date() -> None:
    assert typescript.main(["--check"]) == 0, "run: python -m tools.typescript"


def test_messages_are_told_apart_by_their_type() -> None:
    text = typescript.rendered()
    assert 'export interface Final {\n  type: "final";' in text
    assert "export type FromServer = Greeting | Ready | Received" in text
    assert "  words?: Word[] | null;" in text or "  words: Word[] | null;" in text
