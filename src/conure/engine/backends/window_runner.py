"""Interface of the runners for streams of unified models, which encode each chunk again within a window of audio."""

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
        """Computes the mel features that `encode` expects."""
        ...

    def encode(
        self,
        mel: Any,
        frames: np.ndarray,
        left: np.ndarray,
        context: AttentionContext,
        prompts: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """Windows mel [B, T, F], frames [B], whose chunk begins after `left` [B] steps -> the chunk's encoded [B, C, D]
        and counts [B].
        """
        ...
