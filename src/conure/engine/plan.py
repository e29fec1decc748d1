"""What an engine is to hold, and what it turned out to be. Knows no torch: another process reads it, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conure.types import RunnerChoice

__all__ = ["ModelInfo", "Plan"]


@dataclass(frozen=True)
class Plan:
    live: tuple[str, ...] = ()
    """Models for streams: names, hub ids or paths."""
    clips: tuple[str, ...] = ()
    """Models for clips."""
    device: str = "auto"
    runner: RunnerChoice = "auto"
    threads: int | None = None
    cache: Path | None = None
    slots: int | None = None
    """Streams that each live model has rows for; None takes what memory allows."""
    device_memory: float | None = None
    """The part of a card's free memory that torch is held to; None plans with most of it and holds torch to nothing."""


@dataclass(frozen=True)
class ModelInfo:
    """What whoever talks to the engine needs to know of one of its models."""

    name: str
    asked: str
    """The name in the plan; a path, perhaps."""
    tokenizer_file: str
    tokenizer: bytes
    vocabulary: int
    languages: tuple[str, ...] = ()
    prompt_ids: tuple[tuple[str, int], ...] = ()
    """Language to slot of the prompt, where the model takes one."""
    latencies: tuple[int, ...] = ()
    """Milliseconds of audio in a chunk, the least first; empty where it is for clips alone."""
    slots: int = 0
    capacity: tuple[int, ...] = ()
    """Streams that are promised to be in time, for each latency: measured when the engine started."""
    clips: bool = False
    runner: str = ""
