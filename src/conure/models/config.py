"""The config of a network. It is inferred from a checkpoint's tensors as far as possible (see `weights`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from conure.audio.mel import MelConfig
from conure.constants import ENCODER_FRAME_MS

__all__ = [
    "LEAD_FRAMES",
    "LONG_CONTEXT",
    "MAX_FULL_ATTENTION_STEPS",
    "STEP_FRAMES",
    "AttentionContext",
    "ContextStyle",
    "EncoderConfig",
    "NetworkConfig",
]

STEP_FRAMES = 8
"""Mel frames (10 ms) in an encoder step (80 ms)."""

LEAD_FRAMES = STEP_FRAMES - 1
"""Virtual frames before the first mel frame of a stream: they give its first chunk the size of all others."""

ContextStyle = Literal["regular", "chunked_limited", "chunked_limited_with_rc"]


@dataclass(frozen=True)
class AttentionContext:
    """The attention span of a step, in encoder steps; -1 means unlimited.

    regular: `left` steps back and `right` ahead. chunked_limited: time is divided into chunks of `right` + 1
    steps; a step sees its whole chunk and the `left // chunk` chunks before it. chunked_limited_with_rc:
    chunks of `chunk` steps; a step sees its chunk, `left` steps before it and `right` after it.
    """

    left: int = -1
    right: int = -1
    chunk: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """Whether every step sees the whole clip, in any style."""
        return self.left < 0 and self.right < 0 and self.chunk is None


MAX_FULL_ATTENTION_STEPS = 15_360
"""20 minutes, one of the lengths to which batches are padded; longer clips use local attention. Attention grows with
T^2: at this length its products cost two to three times as much as all others of a layer of width 1,024, and no network
was trained with context from an hour ago."""
LONG_CONTEXT = AttentionContext(128, 128)
"""10 seconds to either side, as NVIDIA's model descriptions recommend for hours of audio."""


@dataclass(frozen=True)
class EncoderConfig:
    features: int = 80
    layers: int = 17
    width: int = 512
    heads: int = 8
    expansion: int = 4
    kernel: int = 9
    channels: int = 256
    """Channels of the subsampling convolutions."""
    bias: bool = True
    """Whether attention, convolution and feed-forward have biases; norms and subsampling always do."""
    scale_input: bool = False
    """Multiply the subsampled input by sqrt(width)."""
    causal_subsampling: bool = False
    causal_convolution: bool = False
    """Convolutions see only the past. Cache-aware streaming requires both to be causal."""
    norm: Literal["batch_norm", "layer_norm"] = "batch_norm"
    style: ContextStyle = "regular"
    contexts: tuple[AttentionContext, ...] = (AttentionContext(),)
    """The contexts that the checkpoint was trained with; the first is the default."""
    local: bool = False
    """Attention in blocks of the context's width: linear in time."""
    global_tokens: int = 0
    """With local attention: number of steps that see the whole clip and are seen by all of it, see `global_steps`."""
    global_spacing: int = 1
    """Steps from one global step to the next; the first is the clip's first step."""
    global_separate: bool = False
    """Whether layers have separate queries, keys and values for global steps."""
    speaker_layers: tuple[int, ...] = ()
    """Layers that speaker kernels precede (multitalker models)."""
    dropout: float = 0.0

    @property
    def is_cache_aware(self) -> bool:
        """Whether the encoder can run chunk by chunk with the same results as for the whole clip."""
        chunked = self.style == "chunked_limited" and all(c.left >= 0 and c.right >= 0 for c in self.contexts)
        return self.causal_subsampling and self.causal_convolution and chunked

    def global_steps(self, steps: int) -> range:
        """The global steps of a clip of `steps` steps: they see all others and are seen by them."""
        return range(0, min(steps, self.global_tokens * self.global_spacing), self.global_spacing)

    @property
    def max_past(self) -> int:
        """Most steps before its chunk that a step may see."""
        return max(context.left for context in self.contexts)

    @property
    def max_chunk(self) -> int:
        """Steps of the largest chunk of a cache-aware network."""
        return max(context.right + 1 for context in self.contexts)

    @property
    def latencies(self) -> tuple[int, ...]:
        """Milliseconds of audio in a chunk of a cache-aware network, ascending."""
        return tuple(sorted((context.right + 1) * ENCODER_FRAME_MS for context in self.contexts))


@dataclass(frozen=True)
class NetworkConfig:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    mel: MelConfig = field(default_factory=MelConfig)
    vocabulary: int = 1024
    """Number of tokens without the blank, whose id is `vocabulary`."""
    predictor_width: int = 0
    """0 without a transducer head."""
    predictor_layers: int = 0
    joint_width: int = 0
    durations: tuple[int, ...] = ()
    """Durations that TDT predicts, in steps; empty for RNNT."""
    ctc: bool = False
    prompts: int = 0
    """Slots of the language prompt; 0 if the model has none."""
    prompt_ids: tuple[tuple[str, int], ...] = ()
    """Language name to prompt slot."""
    max_symbols: int = 10
    """Most tokens that a transducer emits at one step before it is forced to the next."""

    @property
    def blank(self) -> int:
        return self.vocabulary
