"""Numbers of the models and the audio that every part of Conure shares."""

from __future__ import annotations

__all__ = ["ENCODER_FRAME_MS", "ENCODER_FRAME_SECONDS", "END_OF_UTTERANCE", "SAMPLE_RATE"]

SAMPLE_RATE = 16_000
"""Samples per second of all audio that reaches a model."""
ENCODER_FRAME_MS = 80
"""8 mel frames of 10 ms."""
ENCODER_FRAME_SECONDS = 0.08
END_OF_UTTERANCE = "<EOU>"
"""The token with which some models mark the end of an utterance."""
