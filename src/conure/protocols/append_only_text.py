"""Partial text for clients that append each message to the text received before."""

from __future__ import annotations

__all__ = ["AppendOnlyText"]


class AppendOnlyText:
    """The text of one utterance. Text that was sent cannot be revised."""

    def __init__(self) -> None:
        self.sent = ""

    def append(self, text: str) -> str:
        """Returns the new part of `text`; empty if `text` does not continue what was sent."""
        if not text.startswith(self.sent):
            return ""
        new_text, self.sent = text.removeprefix(self.sent), text
        return new_text
