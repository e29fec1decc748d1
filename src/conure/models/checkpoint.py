"""A checkpoint in memory: shape, weights under our names, tokenizer. Where it came from no longer matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conure.models.config import NetworkConfig
from conure.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "head_names"]

FLOAT = 4
"""Bytes of a number of the heads."""


def head_names(config: NetworkConfig) -> tuple[str, ...]:
    """The heads of a network, the default one first."""
    transducer = ("tdt" if config.durations else "rnnt",) if config.predictor_width else ()
    return transducer + (("ctc",) if config.ctc else ())


@dataclass(frozen=True)
class Checkpoint:
    """What a network is built from. Tensors keep the type they were stored in (fp32, fp16 or bf16)."""

    config: NetworkConfig
    tensors: dict[str, Tensor]
    """Parameters and statistics by our names; see `weights`. None where a converted model holds them."""
    tokenizer: Tokenizer
    window: Tensor | None = None
    """The analysis window the checkpoint was trained with, when it holds one."""
    filterbank: Tensor | None = None
    """Likewise the mel filterbank, [features, fft // 2 + 1]; some checkpoints hold a rounded one."""
    languages: tuple[str, ...] = ()
    """Empty when neither the checkpoint nor the catalogue tells."""
    name: str = ""
    source: str = ""
    """The file or folder it was read from."""

    @property
    def default_head(self) -> str:
        """The head used by default: tdt, rnnt or ctc."""
        return head_names(self.config)[0]

    @property
    def family(self) -> str:
        """What kind of model this is, told from its shape and vocabulary."""
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
        """Numbers that were learned; statistics of norms are not."""
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith(("running_mean", "running_var")))

    def weight_bytes(self, size: int) -> int:
        """Of the weights with so many bytes a number of the encoder and the language prompt; heads keep float32."""
        return sum(
            tensor.numel() * (size if name.startswith(("encoder.", "prompt.")) else FLOAT)
            for name, tensor in self.tensors.items()
        )

    @property
    def megabytes(self) -> float:
        """Size of the weights as stored."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values()) / 1e6
