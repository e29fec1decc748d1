"""Runs a cache-aware network on streams with the plain modules, without CUDA graphs or fused state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.engine.backends.decoder import Tokens
from conure.engine.backends.prepare_network import prepare_network
from conure.engine.backends.stream_state import StreamState
from conure.engine.backends.torch_eager.decoder import TorchDecoder, TorchDecoderState
from conure.models.config import STEP_FRAMES
from conure.models.encoder_state import EncoderState
from conure.models.network import Heads, Network

__all__ = ["TorchStreamRunner"]


class TorchStreamRunner:
    """The encoder is in bfloat16 on CUDA by default, the rest in float32."""

    def __init__(
        self, network: Network, log_mel: LogMel, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        if not network.config.encoder.is_cache_aware:
            raise ValueError("this network is not cache-aware and cannot process streams in chunks")
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.network = prepare_network(network, device, self.dtype, folded=False)
        self.heads: Heads = self.network
        self.decoder = TorchDecoder(self.heads)
        self.feature_extractor = log_mel.to(device)
        self.config = network.config
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}"
        self._positions: dict[int, list[Tensor]] = {}

    def allocate(self, rows: int) -> StreamState[EncoderState]:
        config, template = self.config.encoder, self.network.encoder.pre_encode.out.weight
        encoder = EncoderState.allocate(config, rows, config.max_past, template)
        return StreamState(encoder, self.decoder.allocate(rows))

    @torch.inference_mode()
    def encode_chunk(
        self,
        mel: Any,
        frames: np.ndarray,
        state: StreamState[EncoderState],
        rows: np.ndarray,
        prompts: np.ndarray | None = None,
        flush: np.ndarray | None = None,
    ) -> tuple[Tensor, Tensor]:
        device = self.heads.device
        mel = torch.as_tensor(mel, device=device)
        lengths, slots = (torch.as_tensor(numbers, device=device) for numbers in (frames, rows))
        prompt_ids = None if prompts is None else torch.as_tensor(prompts, device=device)
        chunk = mel.shape[1] // STEP_FRAMES
        past = state.encoder.keys.shape[3]
        if chunk not in self._positions:
            self._positions[chunk] = self.network.encoder.positions(past + chunk - 1, 1 - chunk)
        before = state.encoder.gather(slots)
        encoded, counts, after = self.network.encoder.step(mel.to(self.dtype), lengths, before, self._positions[chunk])
        if flush is not None:
            after = after.keep_rows(torch.as_tensor(flush, device=device), before)
        state.encoder.scatter(slots, after)
        return self.network.apply_prompt(encoded, prompt_ids).float(), counts

    def decode_chunk(
        self,
        encoded: Tensor,
        counts: Tensor,
        state: StreamState[Any],
        rows: np.ndarray,
        flush: np.ndarray | None = None,
    ) -> Tokens:
        assert isinstance(state.decoder, TorchDecoderState)
        return self.decoder.decode_chunk(encoded, counts, state.decoder, rows, flush)
