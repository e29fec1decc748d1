"""What runs the streaming step of a cache-aware network: rows of any age, one chunk each."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.clip_decoder import PlainDecoder, StreamDecoder, Tokens
from conure.engine.placing import prepared
from conure.engine.stream_state import Memory, StreamState
from conure.models.config import STEP_FRAMES, NetworkConfig
from conure.models.network import Heads, Network
from conure.models.state import EncoderState

__all__ = ["StreamRunner", "TorchStreamRunner"]


class StreamRunner(Protocol[Memory]):
    heads: Heads
    front: LogMel
    config: NetworkConfig
    description: str

    def allocate(self, rows: int) -> StreamState[Memory]: ...

    def step(
        self, mel: Tensor, frames: Tensor, state: StreamState[Memory], rows: Tensor, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """mel [B, 8C, F], frames [B] and the rows of `state` they are for -> encoded [B, C, D], counts [B].

        As Encoder.step has it; the rows of the encoder's state are moved on in place.
        """
        ...

    def decode(self, encoded: Tensor, counts: Tensor, state: StreamState[Memory], rows: Tensor) -> Tokens:
        """What `step` gave -> the tokens of each row's chunk; the rows of the decoder's state are moved on in place."""
        ...


class TorchStreamRunner:
    """The modules as they are: the encoder in bfloat16 on CUDA unless told otherwise, the rest in float32."""

    def __init__(self, network: Network, front: LogMel, device: torch.device, dtype: torch.dtype | None = None) -> None:
        if not network.config.encoder.cache_aware:
            raise ValueError("this network cannot be run chunk by chunk")
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.network = prepared(network, device, self.dtype, folded=False)
        self.heads: Heads = self.network
        self.decoder: StreamDecoder[Any] = PlainDecoder(self.heads)
        self.front = front.to(device)
        self.config = network.config
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"
        self._positions: dict[int, list[Tensor]] = {}

    def allocate(self, rows: int) -> StreamState[EncoderState]:
        config, like = self.config.encoder, self.network.encoder.pre_encode.out.weight
        past = max(context.left for context in config.contexts)
        return StreamState(EncoderState.allocate(config, rows, past, like), self.decoder.allocate(rows))

    @torch.inference_mode()
    def step(
        self, mel: Tensor, frames: Tensor, state: StreamState[EncoderState], rows: Tensor, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        chunk = mel.shape[1] // STEP_FRAMES
        past = state.encoder.keys.shape[3]
        if chunk not in self._positions:
            self._positions[chunk] = self.network.encoder.positions(past + chunk - 1, 1 - chunk)
        before = state.encoder.gather(rows)
        encoded, counts, after = self.network.encoder.step(mel.to(self.dtype), frames, before, self._positions[chunk])
        state.encoder.scatter(rows, after)
        return self.network.prompted(encoded, prompts).float(), counts

    def decode(self, encoded: Tensor, counts: Tensor, state: StreamState[EncoderState], rows: Tensor) -> Tokens:
        return self.decoder.decode_rows(encoded, counts, state.decoder, rows)
