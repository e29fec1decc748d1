"""Text for clients that add what comes to what they have."""

from __future__ import annotations

__all__ = ["AppendOnlyText"]


class AppendOnlyText:
    """One utterance's. What was told cannot be taken back."""

    def __init__(self) -> None:
        self.sent = ""

    def advance(self, text: str) -> str:
        """What is new in it; nothing where it goes on otherwise than was told."""
        if not text.startswith(self.sent):
            return ""
        more, self.sent = text.removeprefix(self.sent), text
        return more
