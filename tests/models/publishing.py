"""Writes the models of `published` in their publishers' formats, with small random tensors: archives and folders."""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from conure.audio.features import LogMel
from conure.audio.mel import MelConfig
from conure.models.catalog import LOCALES
from conure.models.config import EncoderConfig, NetworkConfig
from conure.models.network import Network
from tests.models.published import CTC, DURATIONS, PROMPTED, Folder, Published, artifact, nemo_config

__all__ = ["change_config", "pieces", "write_archive", "write_folder"]

LAYERS, WIDTH, HEADS, CHANNELS, HIDDEN, JOINT = 2, 64, 8, 32, 48, 40
"""Of the small tensors."""
NORMAL, UNKNOWN, USER_DEFINED = 1, 2, 4
"""Kinds of pieces in SentencePiece."""


@functools.cache
def pieces(vocabulary: int) -> tuple[str, ...]:
    """Artificial pieces, and the special tokens of the published vocabulary of this size."""
    marks = {8192: ["<|nospeech|>", "<pad>", "<|endoftext|>", "<|startoftranscript|>", "<|en|>"]}
    marks |= {13087: ["no", "null", "1e3", "12:30:45", "- ", "#", *(f"<{name}>" for name in LOCALES[:39])]}
    first, last = ["<unk>", *marks.get(vocabulary, [])], ["<EOU>", "<EOB>"] if vocabulary == 1026 else []
    count = vocabulary - len(first) - len(last)
    return (*first, *(f"{'▁' * (index % 2)}q{index:x}" for index in range(count)), *last)


def write_archive(model: Published, path: Path) -> Path:
    """A .nemo file; that of nemotron-3.5 is gzipped, and some have names without a folder."""
    labels = list(pieces(model.vocabulary))
    settings = yaml.safe_dump(nemo_config(model, labels), sort_keys=False, allow_unicode=True)
    settings = re.sub(r"^(\s+)'no':", r"\1no:", settings, flags=re.MULTILINE)
    weights = io.BytesIO()
    torch.save(nemo_tensors(model), weights)
    members = {
        artifact(model, "tokenizer.model"): _sentencepiece(pieces(model.vocabulary)),
        artifact(model, "vocab.txt"): "\n".join(labels[1:]).encode(),
        artifact(model, "tokenizer.vocab"): "\n".join(f"{label}\t-1" for label in labels).encode(),
        "model_config.yaml": settings.encode(),
        "model_weights.ckpt": weights.getvalue(),
    }
    packed = _tar(
        members, "" if model.target.endswith(("MultiTalkerRNNTBPEModel", "models.EncDecRNNTBPEModel")) else "./"
    )
    path.write_bytes(gzip.compress(packed, 1) if model.target == PROMPTED else packed)
    return path


def change_config(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Rewrites model_config.yaml of an archive."""
    with tarfile.open(path) as archive:
        members = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
    name = next(name for name in members if name.endswith("model_config.yaml"))
    settings = yaml.safe_load(members[name])
    change(settings)
    members[name] = yaml.safe_dump(settings, sort_keys=False).encode()
    path.write_bytes(_tar(members, ""))
    return path


def write_folder(folder: Folder, path: Path) -> Path:
    """A folder in the format of transformers."""
    path.mkdir()
    save_file({name: t.contiguous() for name, t in folder_tensors(folder).items()}, path / "model.safetensors")
    files = {"config.json": folder.config, "generation_config.json": {"_from_model_config": True}}
    files |= {"processor_config.json": folder.processor, "preprocessor_config.json": folder.preprocessor}
    files["tokenizer_config.json"] = {"tokenizer_class": "ParakeetTokenizer", "pad_token": "<pad>"}
    for name, settings in files.items():
        if settings is not None:
            (path / name).write_text(json.dumps(settings, indent=2))
    _tokenizer(folder.config["vocab_size"] - 1).save(str(path / "tokenizer.json"))
    return path


def nemo_tensors(model: Published) -> dict[str, Tensor]:
    """Tensors under NeMo's names, as in its state dict, those of the feature extractor included."""
    settings, bias = model.encoder, model.encoder.get("use_bias", True)
    network = _network(
        model.mels,
        bias=bias,
        streaming=model.streaming,
        vocabulary=model.vocabulary,
        lstms=0 if model.target == CTC else model.lstms,
        durations=tuple(DURATIONS) if model.tdt else (),
        ctc=model.hybrid or model.target == CTC,
        prompts=128 if model.target == PROMPTED else 0,
        speaker_layers=tuple(model.more.get("spk_kernel_layers", ())),
        global_separate=bool(settings.get("global_attn_separate")),
    )
    front = LogMel(MelConfig(features=model.mels))
    named = {"preprocessor.featurizer.window": front.window, "preprocessor.featurizer.fb": front.filterbank[None]}
    return named | {_nemo_name(name, hybrid=model.hybrid): _convolution(name, t) for name, t in network.items()}


_NEMO = (
    (r"predictor\.embedding\.(.+)", r"decoder.prediction.embed.\1"),
    (r"predictor\.lstm\.(.+)", r"decoder.prediction.dec_rnn.lstm.\1"),
    (r"joint\.head\.(.+)", r"joint.joint_net.2.\1"),
    (r"prompt\.linear1\.(.+)", r"prompt_kernel.0.\1"),
    (r"prompt\.linear2\.(.+)", r"prompt_kernel.2.\1"),
    (r"encoder\.speaker_kernels\.(\d+)\.linear1\.(.+)", r"spk_kernels.\1.0.\2"),
    (r"encoder\.speaker_kernels\.(\d+)\.linear2\.(.+)", r"spk_kernels.\1.3.\2"),
    (r"encoder\.background_kernels\.(\d+)\.linear1\.(.+)", r"bg_spk_kernels.\1.0.\2"),
    (r"encoder\.background_kernels\.(\d+)\.linear2\.(.+)", r"bg_spk_kernels.\1.3.\2"),
)
_TRANSFORMERS = (
    (r"(encoder\.layers\.\d+\.self_attn)\.linear_([qkv])\.(.+)", r"\1.\2_proj.\3"),
    (r"(encoder\.layers\.\d+\.self_attn)\.linear_out\.(.+)", r"\1.o_proj.\2"),
    (r"(encoder\.layers\.\d+\.self_attn)\.linear_pos\.(.+)", r"\1.relative_k_proj.\2"),
    (r"(encoder\.layers\.\d+\.self_attn)\.pos_bias_([uv])", r"\1.bias_\2"),
    (r"(encoder\.layers\.\d+\.conv)\.batch_norm\.(.+)", r"\1.norm.\2"),
    (r"encoder\.pre_encode\.conv\.(.+)", r"encoder.subsampling.layers.\1"),
    (r"encoder\.pre_encode\.out\.(.+)", r"encoder.subsampling.linear.\1"),
    (r"predictor\.(embedding|lstm)\.(.+)", r"decoder.\1.\2"),
    (r"joint\.pred\.(.+)", r"decoder.decoder_projector.\1"),
    (r"joint\.enc\.(.+)", r"encoder_projector.\1"),
    (r"prompt\.linear([12])\.(.+)", r"prompt_projector.linear_\1.\2"),
)
_LIVE_SUBSAMPLING = {"0": "conv_in", "2": "layers.0.depthwise_conv", "3": "layers.0.pointwise_conv"}
_LIVE_SUBSAMPLING |= {"5": "layers.1.depthwise_conv", "6": "layers.1.pointwise_conv"}


def _nemo_name(name: str, *, hybrid: bool) -> str:
    name = re.sub(r"^ctc_head\.", ("ctc_" if hybrid else "") + "decoder.decoder_layers.0.", name)
    return _renamed(name, _NEMO)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, theirs in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    return name


def folder_tensors(folder: Folder) -> dict[str, Tensor]:
    """Tensors under the names of transformers."""
    config, encoder = folder.config, folder.config["encoder_config"]
    live = "streaming" in encoder["model_type"]
    network = _network(
        encoder["num_mel_bins"],
        bias=encoder["attention_bias"],
        streaming=live,
        vocabulary=config["vocab_size"] - 1,
        lstms=config.get("num_decoder_layers", 0),
        durations=tuple(config.get("durations", ())),
        ctc=config["model_type"] == "parakeet_ctc",
        prompts=config.get("num_prompts", 0),
    )
    named = {}
    for name, tensor in network.items():
        if live and (match := re.fullmatch(r"encoder\.pre_encode\.conv\.(\d)\.(.+)", name)):
            named[f"encoder.subsampling.{_LIVE_SUBSAMPLING[match[1]]}.{match[2]}"] = tensor
        else:
            named[_renamed(name, _TRANSFORMERS)] = _convolution(name, tensor)
    return named


def _network(
    mels: int, *, bias: bool, streaming: bool, vocabulary: int, lstms: int, durations: tuple[int, ...], **more: Any
) -> dict[str, Tensor]:
    """Random tensors under Conure's names."""
    encoder = EncoderConfig(
        features=mels,
        layers=LAYERS,
        width=WIDTH,
        heads=HEADS,
        channels=CHANNELS,
        bias=bias,
        causal_subsampling=streaming,
        causal_convolution=streaming,
        norm="layer_norm" if streaming else "batch_norm",
        speaker_layers=more.pop("speaker_layers", ()),
        global_separate=more.pop("global_separate", False),
    )
    transducer = {"predictor_width": HIDDEN, "predictor_layers": lstms, "joint_width": JOINT} if lstms else {}
    torch.manual_seed(0)
    config = NetworkConfig(encoder, MelConfig(features=mels), vocabulary, **transducer, durations=durations, **more)
    return {name: tensor.detach() for name, tensor in Network(config).state_dict().items()}


def _convolution(name: str, tensor: Tensor) -> Tensor:
    """Pointwise convolutions are linear layers in Conure: [out, in] -> [out, in, 1]."""
    is_one = re.fullmatch(r"encoder\.layers\.\d+\.conv\.pointwise_conv[12]\.weight|ctc_head\.weight", name)
    return tensor[:, :, None].contiguous() if is_one else tensor


def _tar(members: dict[str, bytes], before: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if before:
            folder = tarfile.TarInfo(".")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name in sorted(members):
            entry = tarfile.TarInfo(before + name)
            entry.size = len(members[name])
            archive.addfile(entry, io.BytesIO(members[name]))
    return buffer.getvalue()


def _sentencepiece(vocabulary: tuple[str, ...]) -> bytes:
    """A SentencePiece model, encoded field by field as a Protocol Buffer."""
    model = b"".join(_field(1, _piece(piece, index)) for index, piece in enumerate(vocabulary))
    trainer = _number(3, 2) + _number(4, len(vocabulary)) + _number(40, 0)  # byte pairs, size, the unknown piece
    trainer += b"".join(_number(field, -1 & (2**64 - 1)) for field in (41, 42, 43))  # no bos, eos, pad
    return model + _field(2, trainer) + _field(3, _field(1, b"nmt_nfkc_cf"))


def _piece(piece: str, index: int) -> bytes:
    mark = piece.startswith("<|") or piece in ("<EOU>", "<EOB>")
    kind = UNKNOWN if index == 0 else USER_DEFINED if mark else NORMAL
    return _field(1, piece.encode()) + b"\x15" + struct.pack("<f", -float(index)) + _number(3, kind)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    head = bytearray()
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes([*head, value])


def _tokenizer(vocabulary: int) -> tokenizers.Tokenizer:
    """A tokenizer.json with the blank as one more token."""
    ids = {piece: index for index, piece in enumerate(pieces(vocabulary))}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=[], unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens([tokenizers.AddedToken("<blank>", special=True)])
    return made
