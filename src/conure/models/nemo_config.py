"""What NeMo's model_config.yaml says about a network and its tensors do not.

Defaults are those of NeMo's constructors, because a config leaves out what was not set. A setting that would
make other numbers than ours (another attention, another front-end) refuses the checkpoint by its name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, cast

from conure.audio.mel import MelConfig
from conure.errors import BadCheckpoint
from conure.models.config import AttentionContext, ContextStyle
from conure.models.weights import Told

__all__ = ["NemoConfig"]

HOP_SECONDS = 0.01
RATE = 16_000
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
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class NemoConfig:
    """Settings by their dotted path, with OmegaConf's ${references} followed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def get(self, path: str, default: Any = None, hops: int = 8) -> Any:
        """The value at a path, or the default where there is none; a null is a value."""
        value: Any = self._config
        for key in path.split("."):
            value = value.get(key, default) if isinstance(value, Mapping) else default
        if isinstance(value, str) and (reference := _REFERENCE.fullmatch(value)):
            if not hops:
                raise BadCheckpoint(f"{path} refers to itself")
            return self.get(reference[1], default, hops - 1)
        return value

    def number(self, path: str, default: float) -> float:
        value = self.get(path, default)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise BadCheckpoint(f"{path} is {value!r} and should be a number") from error

    def whole(self, path: str, default: int) -> int:
        return int(self.number(path, default))

    def must_be(self, path: str, default: Any, *allowed: Any) -> None:
        """Refuses what we compute otherwise."""
        value = self.get(path, default)
        if value not in allowed:
            raise BadCheckpoint(f"{path} is {value!r}; Conure supports {' or '.join(map(repr, allowed))}")

    def check_family(self) -> None:
        """Refuses models of other kinds by what they are."""
        target = str(self.get("target", "")).rpartition(".")[2]
        for mark, meaning in OTHER_FAMILIES.items():
            if mark in target:
                raise BadCheckpoint(f"{target} is {meaning}; Conure reads FastConformer with CTC, RNNT or TDT heads")
        encoder = str(self.get("encoder._target_", "ConformerEncoder")).rpartition(".")[2]
        if encoder != "ConformerEncoder":
            raise BadCheckpoint(f"the encoder is {encoder}; Conure supports ConformerEncoder")
        for part, known in (("decoder", ("RNNTDecoder", "ConvASRDecoder")), ("joint", ("RNNTJoint",))):
            kind = str(self.get(f"{part}._target_", known[0])).rpartition(".")[2]
            if kind not in known:
                raise BadCheckpoint(f"the {part} is {kind}; Conure supports {' and '.join(known)}")

    def told(self) -> Told:
        self._check_network()
        style = str(self.get("encoder.att_context_style", "regular"))
        local = self.get("encoder.self_attention_model", "rel_pos") == "rel_pos_local_attn"
        return Told(
            mel=self._mel(),
            scale_input=bool(self.get("encoder.xscaling", True)),
            causal_subsampling=bool(self.get("encoder.causal_downsampling", False)),
            causal_convolution=self._causal_convolution(),
            style=cast("ContextStyle", style),
            contexts=self._contexts(style),
            local=local,
            global_tokens=self.whole("encoder.global_tokens", 0) if local else 0,
            global_spacing=self.whole("encoder.global_tokens_spacing", 1) if local else 1,
            durations=self._durations(),
            prompt_ids=self._prompt_ids(),
            max_symbols=self._max_symbols(),
        )

    def _check_network(self) -> None:
        self.must_be("encoder.subsampling", "striding", "dw_striding")
        self.must_be("encoder.subsampling_factor", 4, 8)
        self.must_be("encoder.self_attention_model", "rel_pos", "rel_pos", "rel_pos_local_attn")
        self.must_be("encoder.reduction", None, None)
        self.must_be("encoder.conv_norm_type", "batch_norm", "batch_norm", "layer_norm")
        self.must_be("encoder.att_context_style", "regular", "regular", "chunked_limited", "chunked_limited_with_rc")
        self.must_be("joint.jointnet.activation", "relu", "relu")
        self.must_be("decoder.normalization_mode", None, None)
        if self.get("decoding.big_blank_durations"):
            raise BadCheckpoint("decoding.big_blank_durations is set: Conure does not support multi-blank transducers")

    def _mel(self) -> MelConfig:
        part = "preprocessor."
        self.must_be(part + "sample_rate", RATE, RATE)
        self.must_be(part + "frame_splicing", 1, 1)
        self.must_be(part + "log", True, True)
        self.must_be(part + "log_zero_guard_type", "add", "add")
        self.must_be(part + "mag_power", 2.0, 2.0)
        self.must_be(part + "exact_pad", False, False)
        if self.number(part + "window_stride", HOP_SECONDS) != HOP_SECONDS:
            raise BadCheckpoint(f"{part}window_stride is not {HOP_SECONDS}: encoder steps would not be of 80 ms")
        window = round(self.number(part + "window_size", 0.02) * RATE)
        guard = self.get(part + "log_zero_guard_value", 2.0**-24)
        tiny = {"tiny": 2.0**-126, "eps": 2.0**-23}  # of float32, as torch.finfo
        return MelConfig(
            features=self.whole(part + "features", 64),
            normalize=self._normalize(),
            sample_rate=RATE,
            window=window,
            hop=round(HOP_SECONDS * RATE),
            fft=int(self.get(part + "n_fft") or 2 ** max(window - 1, 0).bit_length()),
            preemphasis=0.0 if self.get(part + "preemph", 0.97) is None else self.number(part + "preemph", 0.97),
            log_guard=tiny.get(str(guard)) or self.number(part + "log_zero_guard_value", 2.0**-24),
        )

    def _normalize(self) -> str:
        value = self.get("preprocessor.normalize", "per_feature")
        if isinstance(value, Mapping):
            raise BadCheckpoint("preprocessor.normalize has fixed means, which Conure does not support")
        return value if value in ("per_feature", "all_features") else "NA"

    def _causal_convolution(self) -> bool:
        size, kernel = self.get("encoder.conv_context_size"), self.whole("encoder.conv_kernel_size", 31)
        if size in ("causal", [kernel - 1, 0]):
            return True
        self.must_be("encoder.conv_context_size", None, None, [(kernel - 1) // 2, (kernel - 1) // 2])
        return False

    def _contexts(self, style: str) -> tuple[AttentionContext, ...]:
        if style == "chunked_limited_with_rc":
            return self._chunk_contexts()
        sizes = self.get("encoder.att_context_size") or [-1, -1]
        if not isinstance(sizes, list):
            raise BadCheckpoint(f"encoder.att_context_size is {sizes!r} and should be a list")
        sizes = sizes if isinstance(sizes[0], list) else [sizes]
        for size in sizes:
            _check_context(size, style)
        if self.get("encoder.self_attention_model") == "rel_pos_local_attn":
            self.must_be("encoder.att_context_size", None, *([w, w] for w in (max(sizes[0]),) if w > 0))
        return tuple(AttentionContext(left, right) for left, right in sizes)

    def _chunk_contexts(self) -> tuple[AttentionContext, ...]:
        """The whole clip first, then every choice of left, chunk and right that training drew from."""
        choices = self.get("encoder.att_chunk_context_size", [[], [], []])
        if not (isinstance(choices, list) and len(choices) == 3 and all(_whole_numbers(part) for part in choices)):
            raise BadCheckpoint(f"encoder.att_chunk_context_size is {choices!r}; it takes three lists of numbers")
        if sum(map(len, choices)) > 100 or any(chunk < 1 for chunk in choices[1]):
            raise BadCheckpoint(f"encoder.att_chunk_context_size has senseless choices: {str(choices)[:80]}")
        chunked = (AttentionContext(left, right, chunk) for left, chunk, right in itertools.product(*choices))
        return (AttentionContext(), *chunked)

    def _durations(self) -> tuple[int, ...]:
        kinds = ("decoding.durations", "model_defaults.tdt_durations", "loss.tdt_kwargs.durations")
        values: Any = next((value for path in kinds if (value := self.get(path))), [])
        if not _whole_numbers(values) or any(value < 0 for value in values):
            raise BadCheckpoint(f"decoding.durations is {values!r} and should be a list of steps")
        return tuple(values)

    def _prompt_ids(self) -> tuple[tuple[str, int], ...]:
        names = self.get("model_defaults.prompt_dictionary", {}) or {}
        if not isinstance(names, Mapping) or not _whole_numbers(list(names.values())):
            raise BadCheckpoint("model_defaults.prompt_dictionary does not give numbers to languages")
        return tuple(names.items())

    def _max_symbols(self) -> int:
        limits = (self.get("decoding.greedy.max_symbols"), self.get("decoding.greedy.max_symbols_per_step"))
        return next((limit for limit in limits if type(limit) is int and limit > 0), 10)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


def _check_context(size: Any, style: str) -> None:
    if not _whole_numbers(size) or len(size) != 2:
        raise BadCheckpoint(f"encoder.att_context_size holds {size!r}; a context is [left, right]")
    left, right = size
    if style != "chunked_limited":
        return
    if right < 0 and left >= 0:
        raise BadCheckpoint(f"encoder.att_context_size holds {size!r}: chunks need an end")
    if left > 0 and left % (right + 1):
        raise BadCheckpoint(f"encoder.att_context_size holds {size!r}: {left} steps are no whole chunks of {right + 1}")
