"""The two tiny models: configurations of their networks and training data.

`tiny` transcribes whole clips. `tiny-live` is cache-aware, with chunks of 1 to 14 steps (chosen for each update), and
emits a token at the end of an utterance.
"""

from dataclasses import dataclass, field

from conure.audio.mel import MelConfig
from conure.models.config import AttentionContext, EncoderConfig, NetworkConfig
from tools.train.losses import DURATIONS

LEFT = 56
"""Past context of tiny-live in steps (4.5 s): a multiple of all chunk sizes 1, 2, 4, 7 and 14."""


@dataclass(frozen=True)
class Recipe:
    name: str
    encoder: EncoderConfig
    mel: MelConfig
    durations: tuple[int, ...] = ()
    """Durations of a TDT head; empty for RNNT."""
    publish_ctc: bool = False
    """Training always has a CTC head."""
    marks_ends: bool = False
    """Whether training strings have a token at the end of an utterance."""
    target_delay: int = field(default=0)
    """Delay of words in the frame targets, in steps: a causal network recognises a word only after it was spoken."""

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
    marks_ends=True,
    target_delay=3,
)
RECIPES = {recipe.name: recipe for recipe in (TINY, TINY_LIVE)}
