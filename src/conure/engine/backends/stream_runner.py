"""What runs the streaming step of a cache-aware network: rows of any age, one chunk each."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conure.audio.stream_features import FeatureExtractor
from conure.engine.backends.decoder import Tokens
from conure.engine.backends.stream_state import Memory, StreamState
from conure.models.config import NetworkConfig

__all__ = ["StreamRunner"]


class StreamRunner(Protocol[Memory]):
    config: NetworkConfig
    description: str

    @property
    def feature_extractor(self) -> FeatureExtractor:
        """What makes its features."""
        ...

    def allocate(self, rows: int) -> StreamState[Memory]: ...

    def encode_chunk(
        self,
        mel: Any,
        frames: np.ndarray,
        state: StreamState[Memory],
        rows: np.ndarray,
        prompts: np.ndarray | None = None,
        flush: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """mel [B, 8C, F] of the front, frames [B], the rows of `state` they are for -> encoded [B, C, D], counts [B].

        As Encoder.step has it; the rows of the encoder's state are moved on in place, but for those whose chunk is
        flushed (bool [B]): of these nothing changes that is read again.
        """
        ...

    def decode_chunk(
        self, encoded: Any, counts: Any, state: StreamState[Memory], rows: np.ndarray, flush: np.ndarray | None = None
    ) -> Tokens:
        """What `step` gave -> the tokens of each row's chunk; the rows of the decoder's state are moved on in place.

        Those that are flushed are as `StreamDecoder.decode_rows` has them.
        """
        ...
