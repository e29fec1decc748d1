"""State of streams on a GPU by slot, with a scratch slot for padding rows and flushes."""

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
    """One row: the state of a new stream."""
    vad: SileroRows
    scratch: int
    """Index of the scratch slot, after the last slot."""

    @staticmethod
    def allocate(runner: CudaStreamModel, slots: int) -> CudaStreamState:
        initial = TransducerState.start(runner.network, 1)
        encoder, vad = runner.encoder.allocate(slots + 1), runner.silero.allocate(slots + 1)
        return CudaStreamState(encoder, initial.repeat(slots + 1), initial, vad, slots)

    @property
    def bytes(self) -> int:
        return self.encoder.bytes + self.decoder.bytes + self.vad.bytes
