"""A checkpoint in memory: config, weights under Conure's names, tokenizer. The same for every file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conure.models.config import NetworkConfig
from conure.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "head_names"]

HEAD_ITEM_BYTES = 4
"""Bytes per number of the heads, which stay in float32."""


def head_names(config: NetworkConfig) -> tuple[str, ...]:
    """The heads of a network, the default one first."""
    transducer = ("tdt" if config.durations else "rnnt",) if config.predictor_width else ()
    return transducer + (("ctc",) if config.ctc else ())


@dataclass(frozen=True)
class Checkpoint:
    """Everything a network is built from. Tensors keep the type they were stored in (fp32, fp16 or bf16)."""

    config: NetworkConfig
    tensors: dict[str, Tensor]
    """Parameters and statistics by Conure's names, see `weights`; empty if a converted model holds them."""
    tokenizer: Tokenizer
    window: Tensor | None = None
    """The analysis window of the features, if the checkpoint holds one."""
    filterbank: Tensor | None = None
    """The mel filterbank, [features, fft // 2 + 1], if the checkpoint holds one; some hold a rounded one."""
    languages: tuple[str, ...] = ()
    """Empty if neither the checkpoint nor the catalog lists them."""
    name: str = ""
    source: str = ""
    """The file or folder it was read from."""

    @property
    def default_head(self) -> str:
        """The head used by default: tdt, rnnt or ctc."""
        return head_names(self.config)[0]

    @property
    def family(self) -> str:
        """The family of the model, inferred from its config and vocabulary."""
        encoder = self.config.encoder
        if encoder.speaker_layers:
            return "multitalker"
        if self.config.prompts:
            return "nemotron-multilingual"
        if "<EOU>" in self.tokenizer.pieces:
            return "parakeet-eou"
        if encoder.style == "chunked_limited_with_rc":
            return "parakeet-unified"
        if encoder.is_cache_aware:
            return "nemotron-streaming"
        return "parakeet-" + "-".join(head_names(self.config))

    @property
    def parameter_count(self) -> int:
        """Number of learned parameters, without the statistics of norms."""
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith(("running_mean", "running_var")))

    def weight_bytes(self, size: int) -> int:
        """Bytes of the weights with `size` bytes per number in encoder and language prompt; heads stay in float32."""
        return sum(
            tensor.numel() * (size if name.startswith(("encoder.", "prompt.")) else HEAD_ITEM_BYTES)
            for name, tensor in self.tensors.items()
        )

    @property
    def megabytes(self) -> float:
        """Size of the weights as they are stored."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values()) / 1e6
