"""Everything a model remembers of its live streams: one row a slot, and the scratch row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from conure.decoding.transducer import TransducerState
from conure.models.config import NetworkConfig
from conure.models.network import Heads
from conure.models.state import EncoderState

__all__ = ["StreamState"]


@dataclass(frozen=True)
class StreamState:
    encoder: EncoderState
    decoder: TransducerState
    unspoken: TransducerState
    """One row that has decoded nothing."""

    @staticmethod
    def allocate(config: NetworkConfig, heads: Heads, rows: int, like: Tensor) -> StreamState:
        """Fresh rows; the encoder's are of the type and on the device of `like`."""
        past = max(context.left for context in config.encoder.contexts)
        unspoken = TransducerState.start(heads, 1)
        return StreamState(EncoderState.allocate(config.encoder, rows, past, like), unspoken.repeated(rows), unspoken)

    @property
    def bytes(self) -> int:
        """Memory of the encoder's part, next to which the decoder's is small."""
        state = self.encoder
        tensors = (*state.subsampling, state.keys, state.values, state.convolution, state.length, state.started)
        return sum(tensor.nbytes for tensor in tensors)

    def reset(self, rows: Tensor) -> None:
        """Makes rows ready for new streams."""
        self.encoder.reset(rows)
        self.decoder.scatter(rows, self.unspoken.repeated(len(rows)))
