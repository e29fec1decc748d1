"""What runs a model that hears each chunk anew with what is around it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conure.audio.stream_features import FeatureExtractor
from conure.engine.backends.decoder import StreamDecoder
from conure.models.config import AttentionContext, NetworkConfig

__all__ = ["WindowRunner"]


class WindowRunner(Protocol):
    decoder: StreamDecoder[Any]
    config: NetworkConfig
    description: str

    @property
    def feature_extractor(self) -> FeatureExtractor:
        """What makes its features."""
        ...

    def encode(
        self,
        mel: Any,
        frames: np.ndarray,
        left: np.ndarray,
        context: AttentionContext,
        prompts: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """Windows of streams, mel [B, T, F] of the front, frames [B], each with its chunk after `left` [B] steps.

        -> the chunks' steps [B, C, D], and how many of them there are, [B].
        """
        ...
