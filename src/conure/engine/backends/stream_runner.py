"""Interface of the runners for streams of cache-aware networks: one chunk per stream and step."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conure.audio.stream_features import FeatureExtractor
from conure.engine.backends.decoder import Tokens
from conure.engine.backends.stream_state import EncoderStateT, StreamState
from conure.models.config import NetworkConfig

__all__ = ["StreamRunner"]


class StreamRunner(Protocol[EncoderStateT]):
    config: NetworkConfig
    description: str

    @property
    def feature_extractor(self) -> FeatureExtractor:
        """Computes the mel features that `encode_chunk` expects."""
        ...

    def allocate(self, rows: int) -> StreamState[EncoderStateT]: ...

    def encode_chunk(
        self,
        mel: Any,
        frames: np.ndarray,
        state: StreamState[EncoderStateT],
        rows: np.ndarray,
        prompts: np.ndarray | None = None,
        flush: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """mel [B, 8C, F], frames [B] for slots `rows` [B] of `state` -> encoded [B, C, D], counts [B].

        Computes `Encoder.step` and updates the encoder state of these slots, except for rows whose chunk is flushed
        (bool [B]): their visible state does not change.
        """
        ...

    def decode_chunk(
        self,
        encoded: Any,
        counts: Any,
        state: StreamState[EncoderStateT],
        rows: np.ndarray,
        flush: np.ndarray | None = None,
    ) -> Tokens:
        """The result of `encode_chunk` -> the tokens of each row; updates the decoder state of these slots.

        Flushed rows are treated as in `StreamDecoder.decode_chunk`.
        """
        ...
