"""Conure: speech to text on your own machine.

    import conure

    recognizer = conure.load("parakeet-tdt-0.6b-v3")
    transcript = recognizer.transcribe("talk.mp3")
    print(transcript.text)

Importing the package loads no other library. `load` does: torch only if it runs or converts the model. The import turns
off usage statistics of libraries, for this process and its children (`conure.telemetry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conure import telemetry
from conure.errors import ConureError
from conure.types import Segment, Transcript, Word

if TYPE_CHECKING:
    from conure.service.recognizer import Recognizer, load

__all__ = ["ConureError", "Recognizer", "Segment", "Transcript", "Word", "load"]

_LATE = {"Recognizer", "load"}

telemetry.disable_telemetry()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("conure")
    if name in _LATE:
        from conure.service import recognizer

        return getattr(recognizer, name)
    raise AttributeError(f"module 'conure' has no attribute {name!r}")
