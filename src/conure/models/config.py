"""The shape of a network. Read from a checkpoint's tensors wherever tensors tell (see `weights`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from conure.audio.mel import MelConfig

__all__ = [
    "LEAD_FRAMES",
    "LONG_CONTEXT",
    "MAX_FULL_ATTENTION_STEPS",
    "STEP_FRAMES",
    "STEP_MS",
    "AttentionContext",
    "ContextStyle",
    "EncoderConfig",
    "NetworkConfig",
]

STEP_FRAMES = 8
"""Mel frames (10 ms) in an encoder step (80 ms)."""
STEP_MS = 80

LEAD_FRAMES = STEP_FRAMES - 1
"""Virtual frames before the first mel frame of a stream, so that its first chunk has the size of any other."""

ContextStyle = Literal["regular", "chunked_limited", "chunked_limited_with_rc"]


@dataclass(frozen=True)
class AttentionContext:
    """How far a step sees, in encoder steps; -1 is without limit.

    regular: `left` steps back and `right` ahead. chunked_limited: time is cut into chunks of `right` + 1
    steps; a step sees its whole chunk and the `left // chunk` chunks before it. chunked_limited_with_rc:
    chunks of `chunk` steps; a step sees its chunk, `left` steps before it and `right` after it.
    """

    left: int = -1
    right: int = -1
    chunk: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """The whole clip, whatever the style."""
        return self.left < 0 and self.right < 0 and self.chunk is None


MAX_FULL_ATTENTION_STEPS = 15_360
"""20 minutes, a length that batches are padded to; what is longer is attended to locally. Attention grows with T^2:
here its products are twice to three times all others of a layer of 1,024, and no network was trained to learn
anything of a step from an hour before it."""
LONG_CONTEXT = AttentionContext(128, 128)
"""10 seconds to either side, as NVIDIA's model cards run hours of audio."""


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
    """Biases of attention, convolution and feed-forward; norms and subsampling always have theirs."""
    scale_input: bool = False
    """Multiply the subsampled input by sqrt(width)."""
    causal_subsampling: bool = False
    causal_convolution: bool = False
    """Convolutions see only the past; cache-aware streaming needs both."""
    norm: Literal["batch_norm", "layer_norm"] = "batch_norm"
    style: ContextStyle = "regular"
    contexts: tuple[AttentionContext, ...] = (AttentionContext(),)
    """Those the checkpoint was trained for; the first is its default."""
    local: bool = False
    """Attention in blocks of the context's width: linear in time."""
    global_tokens: int = 0
    """With local attention: so many steps see the whole clip and are seen by all of it, see `global_steps`."""
    global_spacing: int = 1
    """Steps from one of them to the next; the first is the clip's first."""
    global_separate: bool = False
    """Layers have queries, keys and values for them alone."""
    speaker_layers: tuple[int, ...] = ()
    """Layers that speaker kernels precede (multitalker models)."""
    dropout: float = 0.0

    @property
    def is_cache_aware(self) -> bool:
        """Can be run chunk by chunk with the numbers of the whole clip."""
        chunked = self.style == "chunked_limited" and all(c.left >= 0 and c.right >= 0 for c in self.contexts)
        return self.causal_subsampling and self.causal_convolution and chunked

    def global_steps(self, steps: int) -> range:
        """Those steps of a clip of so many that see all others and are seen by them."""
        return range(0, min(steps, self.global_tokens * self.global_spacing), self.global_spacing)

    @property
    def max_past(self) -> int:
        """Steps before its chunk that a step may see."""
        return max(context.left for context in self.contexts)

    @property
    def max_chunk(self) -> int:
        """Of cache-aware networks, in steps."""
        return max(context.right + 1 for context in self.contexts)

    @property
    def latencies(self) -> tuple[int, ...]:
        """Of cache-aware networks, milliseconds of audio in a chunk, the least first."""
        return tuple(sorted((context.right + 1) * STEP_MS for context in self.contexts))


@dataclass(frozen=True)
class NetworkConfig:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    mel: MelConfig = field(default_factory=MelConfig)
    vocabulary: int = 1024
    """Tokens without the blank, whose id is `vocabulary`."""
    predictor_width: int = 0
    """0: no transducer head."""
    predictor_layers: int = 0
    joint_width: int = 0
    durations: tuple[int, ...] = ()
    """Steps a TDT token may last; empty for RNNT."""
    ctc: bool = False
    prompts: int = 0
    """Slots of the language prompt; 0 when the model takes none."""
    prompt_ids: tuple[tuple[str, int], ...] = ()
    """Language name to prompt slot."""
    max_symbols: int = 10
    """Tokens a transducer may emit at one step before it is moved on."""

    @property
    def blank(self) -> int:
        return self.vocabulary
