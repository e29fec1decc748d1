"""The settings of NeMo's model_config.yaml that a network's tensors do not show.

Defaults are those of NeMo's constructors, because a config omits settings that were not set. A setting with which
Conure would compute other results (another attention, other features) is an error that names it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from conure.audio.mel import MelConfig
from conure.constants import SAMPLE_RATE
from conure.errors import BadCheckpoint
from conure.models import config_values as checked
from conure.models.config import AttentionContext, ContextStyle
from conure.models.config_values import short_repr
from conure.models.weights import DeclaredConfig

__all__ = ["NemoConfig"]

HOP_SECONDS = 0.01
CONTEXT = "encoder.att_context_size"
OTHER_FAMILIES = {
    "Sortformer": "a speaker diarization model",
    "SALM": "a speech language model",
    "SpeechLM": "a speech language model",
    "MultiTaskModel": "a Canary model (attention decoder)",
    "Transf": "a model with an attention decoder",
    "SLU": "a spoken language understanding model",
    "Label": "a speaker or sound classifier",
    "Classification": "a classifier",
    "SSL": "a pre-training model without a head",
    "Denoise": "a pre-training model without a head",
}
PROMPT_DICTIONARIES = (
    "model_defaults.prompt_dictionary",
    "prompt_dictionary",
    "train_ds.prompt_dictionary",
    "validation_ds.prompt_dictionary",
    "test_ds.prompt_dictionary",
)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class NemoConfig:
    """Settings by their dotted path; OmegaConf's ${references} are resolved."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def get(self, path: str, default: Any = None, max_references: int = 8) -> Any:
        """The value at a path, or the default if there is none; null is a value."""
        value: Any = self._config
        for key in path.split("."):
            value = value.get(key, default) if isinstance(value, Mapping) else default
        if isinstance(value, str) and (reference := _REFERENCE.fullmatch(value)):
            if not max_references:
                raise BadCheckpoint(f"{path} refers to itself")
            return self.get(reference[1], default, max_references - 1)
        return value

    def number(self, path: str, default: float, minimum: float, maximum: float) -> float:
        return checked.number(self.get(path, default), path, minimum, maximum)

    def integer(self, path: str, default: int, minimum: int, maximum: int) -> int:
        return checked.integer(self.get(path, default), path, minimum, maximum)

    def boolean(self, path: str, *, default: bool) -> bool:
        return checked.boolean(self.get(path, default), path)

    def require(self, path: str, default: Any, *allowed: Any) -> None:
        """Raises BadCheckpoint if a setting has a value that Conure does not implement."""
        value = self.get(path, default)
        if value not in allowed:
            raise BadCheckpoint(f"{path} is {short_repr(value)}; Conure supports {' or '.join(map(repr, allowed))}")

    def class_name(self, path: str, default: str = "") -> str:
        """The last part of a dotted name."""
        value = self.get(path, default)
        if not isinstance(value, str | None):
            raise BadCheckpoint(f"{path} is {short_repr(value)} and should be the name of a class")
        return (value or default).rpartition(".")[2]

    def check_family(self) -> None:
        """Raises BadCheckpoint for models of unsupported families, naming the family."""
        target = self.class_name("target")
        for part, meaning in OTHER_FAMILIES.items():
            if part in target:
                raise BadCheckpoint(
                    f"{short_repr(target)} is {meaning}; Conure reads FastConformer with CTC, RNNT or TDT heads"
                )
        encoder = self.class_name("encoder._target_", "ConformerEncoder")
        if encoder != "ConformerEncoder":
            raise BadCheckpoint(f"the encoder is {short_repr(encoder)}; Conure supports ConformerEncoder")
        for part, known in (("decoder", ("RNNTDecoder", "ConvASRDecoder")), ("joint", ("RNNTJoint",))):
            kind = self.class_name(f"{part}._target_", known[0])
            if kind not in known:
                raise BadCheckpoint(f"the {part} is {short_repr(kind)}; Conure supports {' and '.join(known)}")

    def declared(self) -> DeclaredConfig:
        """The settings that tensors do not show. Raises BadCheckpoint for unsupported ones."""
        self._check_network()
        style = str(self.get("encoder.att_context_style", "regular"))
        local = self.get("encoder.self_attention_model", "rel_pos") == "rel_pos_local_attn"
        return DeclaredConfig(
            mel=self._mel(),
            scale_input=self.boolean("encoder.xscaling", default=True),
            causal_subsampling=self.boolean("encoder.causal_downsampling", default=False),
            causal_convolution=self._causal_convolution(),
            style=cast("ContextStyle", style),
            contexts=self._contexts(style, local=local),
            local=local,
            global_tokens=self.integer("encoder.global_tokens", 0, 0, checked.MAX_GLOBAL_STEPS) if local else 0,
            global_spacing=self.integer("encoder.global_tokens_spacing", 1, 1, checked.MAX_CONTEXT) if local else 1,
            durations=self._durations(),
            prompt_ids=self._prompt_ids(),
            max_symbols=self._max_symbols(),
        )

    def _check_network(self) -> None:
        self.require("encoder.subsampling", "striding", "dw_striding")
        self.require("encoder.subsampling_factor", 4, 8)
        self.require("encoder.self_attention_model", "rel_pos", "rel_pos", "rel_pos_local_attn")
        self.require("encoder.reduction", None, None)
        self.require("encoder.conv_norm_type", "batch_norm", "batch_norm", "layer_norm")
        self.require("encoder.att_context_style", "regular", "regular", "chunked_limited", "chunked_limited_with_rc")
        self.require("joint.jointnet.activation", "relu", "relu")
        self.require("decoder.normalization_mode", None, None)
        if self.get("decoding.big_blank_durations"):
            raise BadCheckpoint("decoding.big_blank_durations is set: Conure does not support multi-blank transducers")

    def _mel(self) -> MelConfig:
        part = "preprocessor."
        self.require(part + "sample_rate", SAMPLE_RATE, SAMPLE_RATE)
        self.require(part + "frame_splicing", 1, 1)
        self.require(part + "log", True, True)
        self.require(part + "log_zero_guard_type", "add", "add")
        self.require(part + "mag_power", 2.0, 2.0)
        self.require(part + "exact_pad", False, False)
        if self.number(part + "window_stride", HOP_SECONDS, 0, 1) != HOP_SECONDS:
            raise BadCheckpoint(f"{part}window_stride is not {HOP_SECONDS}: encoder steps would not be of 80 ms")
        window = round(self.number(part + "window_size", 0.02, 0, 1) * SAMPLE_RATE)
        fft = 2 ** max(window - 1, 0).bit_length()
        preemphasis = 0.0 if self.get(part + "preemph", 0.97) is None else self.number(part + "preemph", 0.97, 0, 1)
        return MelConfig(
            features=self.integer(part + "features", 64, 1, 2**10),
            normalize=self._normalize(),
            sample_rate=SAMPLE_RATE,
            window=window,
            hop=round(HOP_SECONDS * SAMPLE_RATE),
            fft=fft if self.get(part + "n_fft") is None else self.integer(part + "n_fft", fft, 1, checked.MAX_FFT),
            preemphasis=preemphasis,
            log_guard=self._log_guard(part + "log_zero_guard_value"),
        )

    def _log_guard(self, path: str) -> float:
        """A number, or the name of a limit of float32 as in torch.finfo."""
        match self.get(path, 2.0**-24):
            case "tiny":
                return 2.0**-126
            case "eps":
                return 2.0**-23
        return self.number(path, 2.0**-24, 0, 1)

    def _normalize(self) -> str:
        value = self.get("preprocessor.normalize", "per_feature")
        if isinstance(value, Mapping):
            raise BadCheckpoint("preprocessor.normalize has fixed means, which Conure does not support")
        return value if value in ("per_feature", "all_features") else "NA"

    def _causal_convolution(self) -> bool:
        size, kernel = self.get("encoder.conv_context_size"), self.integer("encoder.conv_kernel_size", 31, 1, 2**10)
        if size in ("causal", [kernel - 1, 0]):
            return True
        self.require("encoder.conv_context_size", None, None, [(kernel - 1) // 2, (kernel - 1) // 2])
        return False

    def _contexts(self, style: str, *, local: bool) -> tuple[AttentionContext, ...]:
        if style == "chunked_limited_with_rc":
            return self._chunk_contexts()
        sizes = self.get("encoder.att_context_size") or [-1, -1]
        if not isinstance(sizes, list) or len(sizes) > checked.MAX_CONTEXTS:
            raise BadCheckpoint(f"{CONTEXT} is {short_repr(sizes)} and should be a list")
        sizes = sizes if isinstance(sizes[0], list) else [sizes]
        for size in sizes:
            _check_context(size, style, local=local)
        return tuple(AttentionContext(left, right) for left, right in sizes)

    def _chunk_contexts(self) -> tuple[AttentionContext, ...]:
        """The unlimited context first, then every combination of left, chunk and right that was used in training."""
        path = "encoder.att_chunk_context_size"
        choices = self.get(path, [[], [], []])
        if not isinstance(choices, list) or len(choices) != 3:
            raise BadCheckpoint(f"{path} is {short_repr(choices)}; it takes three lists of numbers")
        choices = [
            checked.integers(part, path, minimum, checked.MAX_CONTEXT, 100)
            for part, minimum in zip(choices, (-1, 1, -1), strict=True)
        ]
        if math.prod(map(len, choices)) > checked.MAX_CONTEXTS:
            raise BadCheckpoint(f"{path} is {short_repr(choices)}: more than {checked.MAX_CONTEXTS} choices")
        chunked = (AttentionContext(left, right, chunk) for left, chunk, right in itertools.product(*choices))
        return (AttentionContext(), *chunked)

    def _durations(self) -> tuple[int, ...]:
        kinds = ("decoding.durations", "model_defaults.tdt_durations", "loss.tdt_kwargs.durations")
        path = next((path for path in kinds if self.get(path)), kinds[0])
        return tuple(checked.integers(self.get(path) or [], path, 0, checked.MAX_DURATION, 100))

    def _prompt_ids(self) -> tuple[tuple[str, int], ...]:
        """The first prompt dictionary in the order in which NeMo searches."""
        for path in PROMPT_DICTIONARIES:
            if slots := checked.language_slots(self.get(path) or {}, path):
                return slots
        return ()

    def _max_symbols(self) -> int:
        """Most tokens per step. 0 and less mean unlimited in NeMo; then its default applies."""
        for path in ("decoding.greedy.max_symbols", "decoding.greedy.max_symbols_per_step"):
            if self.get(path) is not None and (limit := self.integer(path, 0, -(2**31), checked.MAX_SYMBOLS)) > 0:
                return limit
        return 10


def _check_context(size: Any, style: str, *, local: bool) -> None:
    if not isinstance(size, list) or len(size) != 2:
        raise BadCheckpoint(f"{CONTEXT} holds {short_repr(size)}; a context is [left, right]")
    left, right = (checked.integer(side, CONTEXT, -1, checked.MAX_CONTEXT) for side in size)
    if local and not 0 < left == right <= checked.MAX_WINDOW:
        raise BadCheckpoint(
            f"{CONTEXT} is {short_repr(size)}; of local attention both are equal, 1 to {checked.MAX_WINDOW}"
        )
    if style != "chunked_limited":
        return
    if right < 0 and left >= 0:
        raise BadCheckpoint(f"{CONTEXT} holds {short_repr(size)}: chunks need a right context")
    if left > 0 and left % (right + 1):
        raise BadCheckpoint(
            f"{CONTEXT} holds {short_repr(size)}: {left} steps are not a multiple of the chunk {right + 1}"
        )
