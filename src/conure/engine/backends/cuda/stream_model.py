"""A cache-aware model on a GPU for streams: its networks, CUDA stream and graph capturer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from conure.audio.features import LogMel
from conure.engine.backends.cuda.graph_capture import GraphCapturer, graph_capturer_for
from conure.engine.backends.prepare_network import prepare_network
from conure.models.folded_encoder import FoldedEncoder
from conure.models.network import Network
from conure.models.static_encoder import StaticEncoder
from conure.vad.silero_torch import SlotSilero
from conure.vad.silero_weights import silero_tensors

__all__ = ["CudaStreamModel"]


class CudaStreamModel:
    """The network and the speech detector. The encoder is in bfloat16 on CUDA by default, the rest in float32."""

    def __init__(
        self,
        network: Network,
        log_mel: LogMel,
        device: torch.device,
        dtype: torch.dtype | None = None,
        recorder: GraphCapturer | None = None,
        silero: SlotSilero | None = None,
    ) -> None:
        """Folds the network's encoder in place, unless it is folded already."""
        if not network.config.encoder.is_cache_aware:
            raise ValueError("this network is not cache-aware and cannot process streams in chunks")
        self.device = device
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.network = prepare_network(network, device, self.dtype, folded=True)
        self.config = network.config
        self.feature_extractor = log_mel.to(device)
        past = max(context.left for context in network.config.encoder.contexts)
        assert isinstance(network.encoder, FoldedEncoder)
        self.encoder = StaticEncoder(network.encoder, past)
        self.silero = silero or SlotSilero(silero_tensors(), device)
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.capturer = recorder or graph_capturer_for(device, self._stream)
        self.description = f"torch {str(self.dtype).removeprefix('torch.')} on {device}, CUDA graphs"

    def high_priority(self) -> AbstractContextManager[object]:
        """Work that is launched in this context has priority over clips on the same device."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()
