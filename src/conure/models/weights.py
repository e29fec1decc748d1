"""Maps parameter names of NeMo and transformers to Conure's, and infers the config of a network from its tensors.

Tensors take precedence over configs: published configs omit biases, predictor sizes and mel bands, or contain wrong
ones. Settings that tensors do not show are passed as `DeclaredConfig`. Checks are strict: missing or surplus tensors
and other shapes are errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from conure.audio.mel import MelConfig
from conure.errors import BadCheckpoint
from conure.models.config import AttentionContext, ContextStyle, EncoderConfig, NetworkConfig
from conure.models.config_values import MAX_FFT, first_few, short_repr
from conure.models.network import Network

__all__ = [
    "MAX_TENSORS",
    "Renamed",
    "DeclaredConfig",
    "check_tensors",
    "empty_network",
    "from_conure",
    "from_hugging_face",
    "from_nemo",
    "infer_config",
    "is_learned",
    "network_tensors",
    "declared_by",
]

FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_TENSORS = 20_000
MAX_LAYERS = 500
MAX_NAME_LENGTH = 200
Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*rules: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), ours) for pattern, ours in rules)


_NEMO = _rules(
    (r"preprocessor\.featurizer\.window", "mel.window"),
    (r"preprocessor\.featurizer\.fb", "mel.filterbank"),
    (r"decoder\.prediction\.embed\.(.+)", r"predictor.embedding.\1"),
    (r"decoder\.prediction\.dec_rnn\.lstm\.(.+)", r"predictor.lstm.\1"),
    # The last layer of joint_net comes after an activation and, where there is any, a dropout.
    (r"joint\.joint_net\.[12]\.(weight|bias)", r"joint.head.\1"),
    (r"(?:ctc_)?decoder\.decoder_layers\.0\.(weight|bias)", r"ctc_head.\1"),
    (r"prompt_kernel\.0\.(.+)", r"prompt.linear1.\1"),
    (r"prompt_kernel\.2\.(.+)", r"prompt.linear2.\1"),
    (r"spk_kernels\.(\d+)\.0\.(.+)", r"encoder.speaker_kernels.\1.linear1.\2"),
    (r"spk_kernels\.(\d+)\.3\.(.+)", r"encoder.speaker_kernels.\1.linear2.\2"),
    (r"bg_spk_kernels\.(\d+)\.0\.(.+)", r"encoder.background_kernels.\1.linear1.\2"),
    (r"bg_spk_kernels\.(\d+)\.3\.(.+)", r"encoder.background_kernels.\1.linear2.\2"),
)
_HUGGING_FACE = _rules(
    (r"encoder\.subsampling\.layers\.([02356])\.(weight|bias)", r"encoder.pre_encode.conv.\1.\2"),
    (r"encoder\.subsampling\.conv_in\.(.+)", r"encoder.pre_encode.conv.0.\1"),
    (r"encoder\.subsampling\.layers\.0\.depthwise_conv\.(.+)", r"encoder.pre_encode.conv.2.\1"),
    (r"encoder\.subsampling\.layers\.0\.pointwise_conv\.(.+)", r"encoder.pre_encode.conv.3.\1"),
    (r"encoder\.subsampling\.layers\.1\.depthwise_conv\.(.+)", r"encoder.pre_encode.conv.5.\1"),
    (r"encoder\.subsampling\.layers\.1\.pointwise_conv\.(.+)", r"encoder.pre_encode.conv.6.\1"),
    (r"encoder\.subsampling\.linear\.(.+)", r"encoder.pre_encode.out.\1"),
    (r"(encoder\.layers\.\d+\.self_attn)\.([qkv])_proj\.(.+)", r"\1.linear_\2.\3"),
    (r"(encoder\.layers\.\d+\.self_attn)\.o_proj\.(.+)", r"\1.linear_out.\2"),
    (r"(encoder\.layers\.\d+\.self_attn)\.relative_k_proj\.(.+)", r"\1.linear_pos.\2"),
    (r"(encoder\.layers\.\d+\.self_attn)\.bias_([uv])", r"\1.pos_bias_\2"),
    (r"(encoder\.layers\.\d+\.conv)\.norm\.(.+)", r"\1.batch_norm.\2"),
    (r"decoder\.embedding\.(.+)", r"predictor.embedding.\1"),
    (r"decoder\.lstm\.(.+)", r"predictor.lstm.\1"),
    (r"decoder\.decoder_projector\.(.+)", r"joint.pred.\1"),
    (r"encoder_projector\.(.+)", r"joint.enc.\1"),
    (r"prompt_projector\.linear_([12])\.(.+)", r"prompt.linear\1.\2"),
)
_NOT_LEARNED = re.compile(
    r".*\.num_batches_tracked|encoder\.pos_enc\.pe|(?:loss|ctc_loss|wer|ctc_wer|spec_augmentation)\..+"
    r"|joint\._?(?:loss|wer)\..+"
)
_CONVOLUTION_AS_LINEAR = re.compile(r"encoder\.layers\.\d+\.conv\.pointwise_conv[12]\.weight|ctc_head\.weight")


@dataclass(frozen=True)
class Renamed:
    """Tensors under Conure's names, and those of the feature extractor."""

    tensors: dict[str, Tensor]
    window: Tensor | None
    filterbank: Tensor | None


@dataclass(frozen=True)
class DeclaredConfig:
    """The settings of a checkpoint's config that its tensors do not show."""

    mel: MelConfig
    scale_input: bool
    causal_subsampling: bool
    causal_convolution: bool
    style: ContextStyle = "regular"
    contexts: tuple[AttentionContext, ...] = (AttentionContext(),)
    local: bool = False
    global_tokens: int = 0
    global_spacing: int = 1
    durations: tuple[int, ...] = ()
    prompt_ids: tuple[tuple[str, int], ...] = ()
    max_symbols: int = 10


def is_learned(name: str) -> bool:
    """False for tensors that no network needs: counters, computed tables, losses."""
    return _NOT_LEARNED.fullmatch(name) is None


def from_nemo(tensors: Mapping[str, Tensor]) -> Renamed:
    """Renames a NeMo state dict. The encoder's names are the same in Conure."""
    return _rename(tensors, _NEMO)


def from_hugging_face(tensors: Mapping[str, Tensor]) -> Renamed:
    """Renames the tensors of a transformers model."""
    return _rename(tensors, _HUGGING_FACE)


def from_conure(tensors: Mapping[str, Tensor]) -> Renamed:
    """Splits the tensors of a folder in Conure's format, which has Conure's names, from those of the extractor."""
    return _rename(tensors, ())


def declared_by(config: NetworkConfig) -> DeclaredConfig:
    """The settings of a complete config that tensors do not show."""
    encoder = config.encoder
    return DeclaredConfig(
        mel=config.mel,
        scale_input=encoder.scale_input,
        causal_subsampling=encoder.causal_subsampling,
        causal_convolution=encoder.causal_convolution,
        style=encoder.style,
        contexts=encoder.contexts,
        local=encoder.local,
        global_tokens=encoder.global_tokens,
        global_spacing=encoder.global_spacing,
        durations=config.durations,
        prompt_ids=config.prompt_ids,
        max_symbols=config.max_symbols,
    )


def _rename(tensors: Mapping[str, Tensor], rules: Rules) -> Renamed:
    if len(tensors) > MAX_TENSORS:
        raise BadCheckpoint(f"the checkpoint has {len(tensors):,} tensors; no supported network has {MAX_TENSORS:,}")
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise BadCheckpoint(f"the checkpoint has a tensor with an invalid name: {short_repr(name)}")
        if not is_learned(name):
            continue
        ours = _our_name(name, rules)
        if ours in renamed:
            raise BadCheckpoint(f"two tensors of the checkpoint map to {ours}; one of them is {name}")
        _check_numbers(name, tensor)
        renamed[ours] = _as_linear(ours, tensor)
    window, filterbank = renamed.pop("mel.window", None), renamed.pop("mel.filterbank", None)
    if filterbank is not None and filterbank.dim() == 3:
        filterbank = filterbank[0]  # NeMo stores [1, features, bins]
    if (window is not None and window.dim() != 1) or (filterbank is not None and filterbank.dim() != 2):
        raise BadCheckpoint("the front-end's window or filterbank has another shape than [samples] and [bands, bins]")
    return Renamed(renamed, window, filterbank)


def _our_name(name: str, rules: Rules) -> str:
    for pattern, ours in rules:
        if match := pattern.fullmatch(name):
            return match.expand(ours)
    return name


def _check_numbers(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOAT_TYPES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise BadCheckpoint(f"{name} is stored as {kind}; Conure reads fp32, bf16 and fp16")
    if tensor.numel() == 0 or tensor.layout != torch.strided:
        raise BadCheckpoint(f"{name} is empty or not a dense tensor")


def _as_linear(ours: str, tensor: Tensor) -> Tensor:
    """Convolutions with kernel 1 are linear layers in Conure: [out, in, 1] -> [out, in]."""
    if _CONVOLUTION_AS_LINEAR.fullmatch(ours) and tensor.dim() == 3 and tensor.shape[-1] == 1:
        return tensor[:, :, 0]
    return tensor


def infer_config(renamed: Renamed, declared: DeclaredConfig) -> NetworkConfig:
    """The config of the network that these tensors belong to."""
    tensors = renamed.tensors
    encoder = _infer_encoder(renamed, declared)
    vocabulary, predictor_width, joint_width = _infer_vocabulary(tensors), 0, 0
    durations: tuple[int, ...] = ()
    if "predictor.embedding.weight" in tensors:
        predictor_width = _size(tensors, "predictor.embedding.weight", 1)
        joint_width = _size(tensors, "joint.enc.weight", 0)
        count = _size(tensors, "joint.head.weight", 0) - vocabulary - 1
        if count not in (0, len(declared.durations)):
            raise BadCheckpoint(f"the joint scores {count} durations and the config names {len(declared.durations)}")
        durations = declared.durations if count else ()
    prompts = _size(tensors, "prompt.linear1.weight", 1) - encoder.width if "prompt.linear1.weight" in tensors else 0
    if prompts and not declared.prompt_ids:
        raise BadCheckpoint("the network takes a language prompt, and no prompt_dictionary names its slots")
    outside = [name for name, slot in declared.prompt_ids if not 0 <= slot < prompts]
    if outside and prompts:
        raise BadCheckpoint(f"the language prompt has {prompts} slots, too few for {first_few(outside)}")
    return NetworkConfig(
        encoder=encoder,
        mel=_infer_mel(renamed, declared, encoder.features),
        vocabulary=vocabulary,
        predictor_width=predictor_width,
        predictor_layers=_count(tensors, r"predictor\.lstm\.weight_ih_l(\d+)"),
        joint_width=joint_width,
        durations=durations,
        ctc="ctc_head.weight" in tensors,
        prompts=prompts,
        prompt_ids=declared.prompt_ids if prompts else (),
        max_symbols=declared.max_symbols,
    )


def _infer_encoder(renamed: Renamed, declared: DeclaredConfig) -> EncoderConfig:
    tensors, first = renamed.tensors, "encoder.layers.0."
    width = _size(tensors, "encoder.pre_encode.out.weight", 0)
    features, causal = _infer_features(renamed, declared)
    heads = _size(tensors, first + "self_attn.pos_bias_u", 0)
    if width % heads or width % 2:
        raise BadCheckpoint(f"an encoder {width} wide cannot have {heads} heads")
    layers = _count(tensors, r"encoder\.layers\.(\d+)\.norm_out\.weight")
    speakers = {int(match[1]) for match in _matches(tensors, r"encoder\.speaker_kernels\.(\d{1,4})\..+")}
    return EncoderConfig(
        features=features,
        layers=layers,
        width=width,
        heads=heads,
        expansion=max(_size(tensors, first + "feed_forward1.linear1.weight", 0) // width, 1),
        kernel=_size(tensors, first + "conv.depthwise_conv.weight", 2),
        channels=_size(tensors, "encoder.pre_encode.conv.0.weight", 0),
        bias=first + "self_attn.linear_q.bias" in tensors,
        scale_input=declared.scale_input,
        causal_subsampling=causal,
        causal_convolution=declared.causal_convolution,
        # A checkpoint calls it batch_norm also where it is a LayerNorm; only a BatchNorm has statistics.
        norm="batch_norm" if first + "conv.batch_norm.running_mean" in tensors else "layer_norm",
        style=declared.style,
        contexts=declared.contexts,
        local=declared.local,
        global_tokens=declared.global_tokens,
        global_spacing=declared.global_spacing,
        global_separate=first + "self_attn.global_q.weight" in tensors,
        speaker_layers=tuple(sorted(layer for layer in speakers if layer < layers)),
    )


def _infer_features(renamed: Renamed, declared: DeclaredConfig) -> tuple[int, bool]:
    """Number of mel bands and whether the subsampling is causal, from the bands that remain after it."""
    channels = _size(renamed.tensors, "encoder.pre_encode.conv.0.weight", 0)
    flat = _size(renamed.tensors, "encoder.pre_encode.out.weight", 1)
    left = flat // channels
    if renamed.filterbank is not None:
        options = [renamed.filterbank.shape[0]]
    else:
        options = [declared.mel.features, 8 * left, 8 * (left - 1)]
    for causal in (declared.causal_subsampling, not declared.causal_subsampling):
        for features in options:
            if _bands_left(features, causal) * channels == flat:
                return features, causal
    raise BadCheckpoint(f"the subsampling has {flat} outputs, which does not fit {options[0]} mel bands")


def _bands_left(features: int, causal: bool) -> int:
    for _ in range(3):
        features = features // 2 + 1 if causal else (features - 1) // 2 + 1
    return features


def _infer_mel(renamed: Renamed, declared: DeclaredConfig, features: int) -> MelConfig:
    mel = replace(declared.mel, features=features)
    if renamed.filterbank is not None:
        mel = replace(mel, fft=2 * (renamed.filterbank.shape[-1] - 1))
    if renamed.window is not None:
        mel = replace(mel, window=renamed.window.shape[0])
    if not 0 < mel.hop <= mel.window <= mel.fft <= MAX_FFT:
        raise BadCheckpoint(f"hop {mel.hop}, window {mel.window} and FFT {mel.fft} samples do not fit one another")
    return mel


def _infer_vocabulary(tensors: Mapping[str, Tensor]) -> int:
    rows = {
        name: _size(tensors, name, 0) for name in ("predictor.embedding.weight", "ctc_head.weight") if name in tensors
    }
    if not rows:
        raise BadCheckpoint("the checkpoint has neither a transducer nor a CTC head")
    if len(set(rows.values())) > 1:
        raise BadCheckpoint("the heads have different vocabularies: " + str(rows))
    return next(iter(rows.values())) - 1  # the last row is the blank's


def _matches(tensors: Mapping[str, Tensor], pattern: str) -> list[re.Match[str]]:
    return [match for name in tensors if (match := re.fullmatch(pattern, name))]


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    count = len(_matches(tensors, pattern))
    if count > MAX_LAYERS:
        raise BadCheckpoint(f"the checkpoint has {count} layers; the limit is {MAX_LAYERS}")
    return count


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() <= axis:
        raise BadCheckpoint(f"the checkpoint has no usable {name}: its family is not supported")
    return tensor.shape[axis]


class _NoInitialValues(TorchFunctionMode):
    """Skips the initialisation of parameters: on the meta device it has no effect and costs seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {}).get("tensor")
        return func(*args, **(kwargs or {}))


def empty_network(config: NetworkConfig) -> Network:
    """A network of this config on the meta device: its parameters have no values and take no memory yet."""
    try:
        with torch.device("meta"), _NoInitialValues():
            return Network(config)
    except (RuntimeError, ValueError, AssertionError, OverflowError) as error:
        raise BadCheckpoint(f"no network can have this shape: {str(error).splitlines()[0][:80]}") from error


def network_tensors(config: NetworkConfig) -> dict[str, torch.Size]:
    """Name and shape of every tensor that a network of this config loads."""
    shapes = {name: tensor.shape for name, tensor in empty_network(config).state_dict().items()}
    return {name: shape for name, shape in shapes.items() if is_learned(name)}


def check_tensors(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises BadCheckpoint for missing or surplus tensors and for wrong shapes."""
    expected = network_tensors(config)
    missing = expected.keys() - tensors.keys()
    if missing:
        raise BadCheckpoint(f"the checkpoint lacks {len(missing)} tensors: {first_few(sorted(missing))}")
    surplus = tensors.keys() - expected.keys()
    if surplus:
        raise BadCheckpoint(f"the checkpoint has {len(surplus)} surplus tensors: {first_few(sorted(surplus))}")
    wrong = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if tensors[name].shape != shape
    ]
    if wrong:
        raise BadCheckpoint(f"{len(wrong)} tensors have another shape: {first_few(wrong)}")
