"""The two models we train: what their networks are and what their strings end with.

`tiny` hears whole clips.  `tiny-live` is cache-aware: it sees chunks of 1 to 14 steps as they come, chosen
anew for every update, and says when an utterance is over.
"""

from dataclasses import dataclass, field

from conure.audio.mel import MelConfig
from conure.models.config import AttentionContext, EncoderConfig, NetworkConfig
from tools.train.losses import DURATIONS

LEFT = 56
"""Steps of the past (4.5 s) that tiny-live remembers: a whole number of chunks of 1, 2, 4, 7 and 14 steps."""


@dataclass(frozen=True)
class Recipe:
    name: str
    encoder: EncoderConfig
    mel: MelConfig
    durations: tuple[int, ...] = ()
    """Of a TDT head; none is RNNT."""
    publish_ctc: bool = False
    """Training always has a CTC head."""
    turns: bool = False
    """Strings tell where an utterance ends."""
    target_delay: int = field(default=0)
    """Steps by which words are late in the frame targets: a causal network hears a word only when it was said."""

    def network(self, vocabulary: int, ctc: bool = True) -> NetworkConfig:
        return NetworkConfig(
            encoder=self.encoder,
            mel=self.mel,
            vocabulary=vocabulary,
            predictor_width=128,
            predictor_layers=1,
            joint_width=128,
            durations=self.durations,
            ctc=ctc,
        )


TINY = Recipe(
    "tiny",
    EncoderConfig(features=80, layers=8, width=144, heads=4, kernel=9, channels=48),
    MelConfig(features=80, normalize="per_feature"),
    durations=DURATIONS,
    publish_ctc=True,
)
TINY_LIVE = Recipe(
    "tiny-live",
    EncoderConfig(
        features=80,
        layers=8,
        width=144,
        heads=4,
        kernel=9,
        channels=48,
        causal_subsampling=True,
        causal_convolution=True,
        norm="layer_norm",
        style="chunked_limited",
        contexts=tuple(AttentionContext(LEFT, right) for right in (1, 0, 3, 6, 13)),
    ),
    MelConfig(features=80, normalize="NA"),
    turns=True,
    target_delay=3,
)
RECIPES = {recipe.name: recipe for recipe in (TINY, TINY_LIVE)}
