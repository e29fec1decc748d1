"""Reads folders in the layout of Hugging Face transformers: config.json, safetensors, tokenizer.json.

Only safetensors are read: a pytorch_model.bin is a pickle and is never opened. Shards must lie in the folder itself.
Symbolic links are followed, because the cache of the hub consists of links.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from conure.audio.mel import MelConfig
from conure.errors import BadCheckpoint
from conure.models import config_values as checked
from conure.models.config import AttentionContext, NetworkConfig
from conure.models.config_values import first_few, short_repr
from conure.models.json_file import read_bounded, read_json
from conure.models.weights import MAX_TENSORS, DeclaredConfig

__all__ = ["HuggingFaceFolder", "check_blank", "declared_by_hugging_face", "read_hf", "read_safetensors"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
MAX_HEADER_BYTES = 16 * 2**20
MAX_SHARDS = 1_000

STREAMING = ("nemotron_asr_streaming", "nemotron3_5_asr")
OFFLINE = ("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt")
OTHER_FAMILIES = {
    "nemotron3_diarization": "a speaker diarization model",
    "nemotron3_5_transcribe": "a speech language model",
    "nemo_speechlm": "a speech language model",
}
LOOKAHEADS = (13, 6, 1, 0)
"""Default look-aheads in steps, as the architecture is trained and transformers assumes, if no file lists any."""


@dataclass(frozen=True)
class HuggingFaceFolder:
    """The content of a folder, not yet interpreted."""

    config: dict[str, Any]
    processor: dict[str, Any]
    """Settings of feature extraction and the language prompt; empty if the folder has none."""
    tensors: dict[str, Tensor]
    tokenizer: tuple[str, bytes]
    """File name and content."""


def read_hf(folder: Path) -> HuggingFaceFolder:
    """Reads a whole folder. Raises BadCheckpoint if it is broken, malicious or of another model type."""
    config = read_json(folder / CONFIG)
    _check_model_type(config)
    processor = _read_optional(folder / PROCESSOR)
    features = processor.get("feature_extractor") or _read_optional(folder / PREPROCESSOR)
    if not isinstance(features, dict):
        raise BadCheckpoint(f"{PROCESSOR}: feature_extractor is {short_repr(features)} and should be an object")
    tokenizer = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if tokenizer is None:
        raise BadCheckpoint(f"{folder.name} has neither {' nor '.join(TOKENIZERS)}")
    return HuggingFaceFolder(
        config,
        processor | {"feature_extractor": features},
        _read_tensors(folder),
        (tokenizer.name, read_bounded(tokenizer)),
    )


def _check_model_type(config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise BadCheckpoint(f"{CONFIG}: model_type is {short_repr(kind)} and should be a name")
    if kind in OTHER_FAMILIES:
        raise BadCheckpoint(f"{kind} is {OTHER_FAMILIES[kind]}, which Conure does not read")
    if kind not in OFFLINE + STREAMING:
        known = ", ".join(OFFLINE + STREAMING)
        raise BadCheckpoint(
            f"{CONFIG} has the model type {short_repr(kind)}", f"Conure reads {known}, .nemo and its own folders"
        )


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one file, memory-mapped: pages are read when they are used."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if size < 8 or header > min(size - 8, MAX_HEADER_BYTES):
            raise BadCheckpoint(f"{path.name} has {size:,} bytes and a header that claims {header:,}: it is truncated")
        with safe_open(os.fspath(path), "pt") as tensors:
            names = list(tensors.keys())
            if len(names) > MAX_TENSORS:
                raise BadCheckpoint(f"{path.name} has {len(names):,} tensors; no network has {MAX_TENSORS:,}")
            return {name: tensors.get_tensor(name) for name in names}
    except BadCheckpoint:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise BadCheckpoint(f"{path.name} is not a complete safetensors file: {short_repr(str(error))}") from error


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        pickled = list(folder.glob("*.bin")) + list(folder.glob("*.pt")) + list(folder.glob("*.pth"))
        hint = f"{pickled[0].name} is a pickle, which may run code; convert it to safetensors" if pickled else None
        raise BadCheckpoint(f"{folder.name} has no {WEIGHTS}", hint)
    return _read_shards(folder, read_json(folder / INDEX).get("weight_map"))


def _read_shards(folder: Path, places: Any) -> dict[str, Tensor]:
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise BadCheckpoint(f"{INDEX} has no weight_map")
    shards = sorted(set(places.values()))
    outside = [name for name in shards if Path(name).name != name or not name.endswith(".safetensors")]
    if outside or len(shards) > MAX_SHARDS:
        raise BadCheckpoint(f"{INDEX} names shards outside the folder: {first_few(outside or shards)}")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        shard_tensors = read_safetensors(folder / shard)
        stray = [name for name in shard_tensors if places.get(name) != shard]
        if stray:
            raise BadCheckpoint(f"{shard} holds tensors that {INDEX} does not place there: {first_few(stray)}")
        tensors |= shard_tensors
    if missing := places.keys() - tensors.keys():
        raise BadCheckpoint(f"the shards lack {first_few(sorted(missing))}")
    return tensors


def declared_by_hugging_face(folder: HuggingFaceFolder) -> DeclaredConfig:
    """The settings that tensors do not show, from the config files. Defaults are those of transformers."""
    config, encoder = folder.config, folder.config.get("encoder_config") or {}
    if not isinstance(encoder, dict):
        raise BadCheckpoint(f"{CONFIG}: encoder_config is {short_repr(encoder)} and should be an object")
    _check_settings(config, encoder)
    streaming = config["model_type"] in STREAMING
    durations = config.get("durations", [0, 1, 2, 3, 4]) if config["model_type"] == "parakeet_tdt" else []
    durations = checked.integers(durations, f"{CONFIG}: durations", 0, checked.MAX_DURATION, 100)
    return DeclaredConfig(
        mel=_mel(folder, encoder, streaming),
        scale_input=checked.boolean(encoder.get("scale_input", True), f"{CONFIG}: encoder_config.scale_input"),
        causal_subsampling=streaming,
        causal_convolution=streaming,
        style="chunked_limited" if streaming else "regular",
        contexts=_contexts(folder, encoder) if streaming else (AttentionContext(),),
        durations=tuple(durations),
        prompt_ids=_prompt_ids(folder),
        max_symbols=checked.integer(
            config.get("max_symbols_per_step", 10), f"{CONFIG}: max_symbols_per_step", 1, checked.MAX_SYMBOLS
        ),
    )


def check_blank(folder: HuggingFaceFolder, config: NetworkConfig) -> None:
    """Raises BadCheckpoint unless the blank is the last token. For CTC the padding token is the blank; otherwise most
    converters use another token for padding."""
    key = "pad_token_id" if folder.config["model_type"] == "parakeet_ctc" else "blank_token_id"
    blank = folder.config.get(key, config.blank)
    if blank != config.blank:
        raise BadCheckpoint(
            f"{CONFIG} has {key} {short_repr(blank)}; Conure supports the last token, {config.blank}, as blank"
        )


def _check_settings(config: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    expected = {
        "hidden_act": "silu",
        "subsampling_factor": 8,
        "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2,
    }
    for key, value in expected.items():
        if encoder.get(key, value) != value:
            raise BadCheckpoint(
                f"{CONFIG}: encoder_config.{key} is {short_repr(encoder[key])}; Conure supports {value!r}"
            )
    if config["model_type"] != "parakeet_ctc" and config.get("hidden_act", "relu") != "relu":
        raise BadCheckpoint(f"{CONFIG}: hidden_act is {short_repr(config['hidden_act'])}; Conure supports 'relu'")


def _mel(folder: HuggingFaceFolder, encoder: Mapping[str, Any], streaming: bool) -> MelConfig:
    extractor = folder.processor["feature_extractor"]
    defaults = MelConfig()
    for key, value in (("sampling_rate", defaults.sample_rate), ("hop_length", defaults.hop)):
        if extractor.get(key, value) != value:
            raise BadCheckpoint(f"{key} of the front-end is {short_repr(extractor[key])}; Conure supports {value}")

    def size(key: str, default: int) -> int:
        return checked.integer(extractor.get(key, default), f"{key} of the front-end", 1, checked.MAX_FFT)

    return MelConfig(
        features=checked.integer(encoder.get("num_mel_bins", 80), f"{CONFIG}: encoder_config.num_mel_bins", 1, 2**10),
        normalize="NA" if streaming else "per_feature",
        window=size("win_length", defaults.window),
        fft=size("n_fft", defaults.fft),
        preemphasis=checked.number(
            extractor.get("preemphasis", defaults.preemphasis), "preemphasis of the front-end", 0, 1
        ),
    )


def _contexts(folder: HuggingFaceFolder, encoder: Mapping[str, Any]) -> tuple[AttentionContext, ...]:
    """The attention contexts, the default first. The sliding window includes the step itself, the left context does
    not."""
    window, default, supported = "sliding_window", "default_num_lookahead_tokens", "supported_num_lookahead_tokens"
    limit = checked.MAX_CONTEXT
    left = checked.integer(encoder.get(window, 71), f"{CONFIG}: encoder_config.{window}", 1, limit) - 1
    lookahead = encoder.get(default, folder.processor.get(default, LOOKAHEADS[0]))
    first = checked.integer(lookahead, f"{CONFIG}: encoder_config.{default}", 0, limit)
    for file, settings in ((PROCESSOR, folder.processor), (CONFIG, encoder)):
        if settings.get(supported):
            others = checked.integers(settings[supported], f"{file}: {supported}", 0, limit, checked.MAX_CONTEXTS)
            break
    else:
        others = [right for right in LOOKAHEADS if not left % (right + 1)]
    rights = dict.fromkeys((first, *others))
    broken = [right for right in rights if left % (right + 1)]
    if broken:
        raise BadCheckpoint(
            f"{CONFIG}: encoder_config.{window}: {left} steps are not a multiple of the chunk {broken[0] + 1}"
        )
    return tuple(AttentionContext(left, right) for right in rights)


def _prompt_ids(folder: HuggingFaceFolder) -> tuple[tuple[str, int], ...]:
    """Language name to prompt slot; without a prompt dictionary only the slot of automatic detection is known."""
    if folder.config["model_type"] != "nemotron3_5_asr":
        return ()
    for file, settings in ((PROCESSOR, folder.processor), (CONFIG, folder.config)):
        if settings.get("prompt_dictionary"):
            return checked.language_slots(settings["prompt_dictionary"], f"{file}: prompt_dictionary")
    auto = folder.config.get("default_prompt_id", 101)
    return (("auto", checked.integer(auto, f"{CONFIG}: default_prompt_id", 0, checked.MAX_PROMPTS)),)
