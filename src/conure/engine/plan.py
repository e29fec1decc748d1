"""What an engine is to load, and what it has loaded.

Imports no torch: server processes read these, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conure.types import RunnerChoice

__all__ = ["ModelInfo", "Plan"]


@dataclass(frozen=True)
class Plan:
    live_models: tuple[str, ...] = ()
    """Models for live streams: names, hub ids or paths."""
    clip_models: tuple[str, ...] = ()
    """Models for clips."""
    device: str = "auto"
    runner: RunnerChoice = "auto"
    threads: int | None = None
    cache_folder: Path | None = None
    max_streams: int | None = None
    """Streams that each live model reserves memory for; None for as many as fit."""
    device_memory: float | None = None
    """Fraction of a GPU's free memory that torch is limited to; None plans with most of it and sets no limit."""


@dataclass(frozen=True)
class ModelInfo:
    """What clients of the engine need to know about one of its models."""

    name: str
    requested_name: str
    """The name in the plan, or a path."""
    tokenizer_file: str
    tokenizer: bytes
    vocabulary: int
    languages: tuple[str, ...] = ()
    prompt_ids: tuple[tuple[str, int], ...] = ()
    """Languages with their index in the prompt; empty for models without a prompt."""
    latencies: tuple[int, ...] = ()
    """Milliseconds of audio in a chunk, ascending; empty for a model for clips only."""
    max_streams: int = 0
    capacity: tuple[int, ...] = ()
    """Streams that are served in real time, for each latency: from calibration."""
    supports_clips: bool = False
    runner: str = ""
