"""Everything a device remembers of live streams, by slot, and the slot that padding writes."""

from __future__ import annotations

from dataclasses import dataclass

from conure.decoding.transducer import TransducerState
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.models.ring_state import RingState
from conure.vad.silero_torch import SileroRows

__all__ = ["CudaStreamState"]


@dataclass(frozen=True)
class CudaStreamState:
    encoder: RingState
    decoder: TransducerState
    initial: TransducerState
    """One row that has decoded nothing."""
    vad: SileroRows
    scratch: int
    """The slot after the last."""

    @staticmethod
    def allocate(runner: CudaStreamModel, slots: int) -> CudaStreamState:
        start = TransducerState.start(runner.network, 1)
        encoder, ears = runner.encoder.allocate(slots + 1), runner.silero.allocate(slots + 1)
        return CudaStreamState(encoder, start.repeat(slots + 1), start, ears, slots)

    @property
    def bytes(self) -> int:
        return self.encoder.bytes + self.decoder.bytes + self.vad.bytes
