"""Turn the small NeMo checkpoints into transformers folders, and store what transformers computes with them.

The weights are the same, so NeMo's references hold for these folders too; what is new is the layout that
transformers' own `save_pretrained` writes. Run in transformers' environment, see setup.sh:
    python -m tools.parity.make_hf --data tests/data/parity [--only parakeet_tdt]
"""

import argparse
import io
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers.convert_slow_tokenizer import ParakeetConverter

from tools.parity.audio import SAMPLE_RATE, load_audio
from tools.parity.storage import Tensors, counts, padded, save_reference

COMMON_NAMES = {
    r"^encoder\.pre_encode\.out\.": "encoder.subsampling.linear.",
    r"\.conv\.batch_norm\.": ".conv.norm.",
    r"linear_([qkv])\.": r"\1_proj.",
    r"linear_out\.": "o_proj.",
    r"linear_pos\.": "relative_k_proj.",
    r"pos_bias_([uv])": r"bias_\1",
    r"^decoder\.decoder_layers\.0\.": "ctc_head.",
    r"^decoder\.prediction\.embed\.": "decoder.embedding.",
    r"^decoder\.prediction\.dec_rnn\.lstm\.": "decoder.lstm.",
    r"^joint\.enc\.": "encoder_projector.",
    r"^joint\.pred\.": "decoder.decoder_projector.",
    r"^joint\.joint_net\.\d\.": "joint.head.",
    r"^prompt_kernel\.0\.": "prompt_projector.linear_1.",
    r"^prompt_kernel\.2\.": "prompt_projector.linear_2.",
}
OFFLINE_NAMES = {r"^encoder\.pre_encode\.conv\.": "encoder.subsampling.layers."}
STREAMING_NAMES = {
    r"^encoder\.pre_encode\.conv\.0\.": "encoder.subsampling.conv_in.",
    r"^encoder\.pre_encode\.conv\.2\.": "encoder.subsampling.layers.0.depthwise_conv.",
    r"^encoder\.pre_encode\.conv\.3\.": "encoder.subsampling.layers.0.pointwise_conv.",
    r"^encoder\.pre_encode\.conv\.5\.": "encoder.subsampling.layers.1.depthwise_conv.",
    r"^encoder\.pre_encode\.conv\.6\.": "encoder.subsampling.layers.1.pointwise_conv.",
}


@dataclass(frozen=True)
class Kind:
    """One transformers model type, and the NeMo checkpoint its weights come from."""

    name: str
    source: str
    model_class: str
    config_class: str
    processor_class: str
    decoder_type: str | None = None

    @property
    def streaming(self) -> bool:
        return self.name.startswith("nemotron")


KINDS = [
    Kind("parakeet_tdt", "tdt", "ParakeetForTDT", "ParakeetTDTConfig", "ParakeetProcessor", "tdt"),
    Kind("parakeet_ctc", "ctc", "ParakeetForCTC", "ParakeetCTCConfig", "ParakeetProcessor", "ctc"),
    Kind("parakeet_rnnt", "rnnt", "ParakeetForRNNT", "ParakeetRNNTConfig", "ParakeetProcessor", "rnnt"),
    Kind(
        "nemotron_asr_streaming",
        "nemotron",
        "NemotronAsrStreamingForRNNT",
        "NemotronAsrStreamingConfig",
        "NemotronAsrStreamingProcessor",
    ),
    Kind(
        "nemotron3_5_asr",
        "nemotron_prompt",
        "Nemotron3_5AsrForRNNT",
        "Nemotron3_5AsrConfig",
        "Nemotron3_5AsrProcessor",
    ),
]


@dataclass
class Archive:
    """The used contents of a .nemo file."""

    config: dict[str, Any]
    weights: Tensors
    tokenizer: bytes

    @classmethod
    def read(cls, path: Path) -> "Archive":
        with tarfile.open(path) as archive:
            members = {Path(m.name).name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}
        weights = torch.load(io.BytesIO(members["model_weights.ckpt"]), weights_only=True)
        tokenizer = next(content for name, content in members.items() if name.endswith("_tokenizer.model"))
        return cls(yaml.load(members["model_config.yaml"], yaml.BaseLoader), weights, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the .nemo files")
    parser.add_argument("--audio", type=Path, default=Path("tests/data/parity"), help="folder of audio.safetensors")
    parser.add_argument("--only", nargs="*", help="names of model types")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = options.only or [kind.name for kind in KINDS if (options.data / f"{kind.source}.nemo").exists()]
    for kind in (kind for kind in KINDS if kind.name in wanted):
        make_kind(kind, options.data, load_audio(options.audio))


def make_kind(kind: Kind, data: Path, audio: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Write hf_NAME/ and its reference."""
    folder = data / f"hf_{kind.name}"
    shutil.rmtree(folder, ignore_errors=True)
    archive = Archive.read(data / f"{kind.source}.nemo")
    model = build_model(kind, archive)
    processor = build_processor(kind, archive, folder)
    model.bfloat16().save_pretrained(folder)  # exact: the weights were rounded when they were made
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    model = getattr(transformers, kind.model_class).from_pretrained(folder, dtype=torch.float32).eval()
    nemo = load_file(data / f"{kind.source}.reference.safetensors")
    with torch.inference_mode():
        tensors, facts = run_kind(kind, model, processor, audio, nemo)
    save_reference(data, f"hf_{kind.name}.expected", tensors, facts)
    print(kind.name, {name: fact for name, fact in facts.items() if "nemo" in name}, flush=True)


def build_model(kind: Kind, archive: Archive):
    """The transformers model with the archive's weights; every tensor must have a counterpart."""
    model = getattr(transformers, kind.model_class)(build_config(kind, archive))
    names = COMMON_NAMES | (STREAMING_NAMES if kind.streaming else OFFLINE_NAMES)
    model.load_state_dict(rename(archive.weights, names))
    if kind.decoder_type != "ctc":
        model.generation_config.decoder_start_token_id = model.config.blank_token_id
    if kind.decoder_type == "tdt":  # else generate() may take a duration's logit for a token
        vocab = model.config.vocab_size
        model.generation_config.suppress_tokens = [vocab + index for index in range(len(model.config.durations))]
    return model.eval()


def rename(weights: Tensors, names: dict[str, str]) -> Tensors:
    """NeMo's names to transformers', without the front-end's buffers."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith(("encoder", "decoder", "joint", "prompt_kernel")):
            for pattern, replacement in names.items():
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed


def build_config(kind: Kind, archive: Archive):
    """The configuration, derived from shapes of the archive's tensors where possible."""
    weights, encoder = archive.weights, archive.config["encoder"]
    has_bias = "encoder.layers.0.self_attn.linear_q.bias" in weights
    encoder_config: dict[str, Any] = {
        "hidden_size": int(encoder["d_model"]),
        "num_hidden_layers": int(encoder["n_layers"]),
        "num_attention_heads": int(encoder["n_heads"]),
        "intermediate_size": 4 * int(encoder["d_model"]),
        "attention_bias": has_bias,
        "convolution_bias": has_bias,
        "scale_input": encoder["xscaling"] == "true",
        "subsampling_conv_channels": int(encoder["subsampling_conv_channels"]),
        "num_mel_bins": int(encoder["feat_in"]),
    }
    if kind.streaming:
        left, right = (int(number) for number in encoder["att_context_size"][0])
        encoder_config |= {"sliding_window": left + 1, "default_num_lookahead_tokens": right}
    config_class = getattr(transformers, kind.config_class)
    if kind.decoder_type == "ctc":
        vocab = len(weights["decoder.decoder_layers.0.weight"])
        return config_class(vocab_size=vocab, pad_token_id=vocab - 1, encoder_config=encoder_config)
    embedding = weights["decoder.prediction.embed.weight"]
    config: dict[str, Any] = {
        "vocab_size": len(embedding),
        "blank_token_id": len(embedding) - 1,
        "decoder_hidden_size": embedding.shape[1],
        "num_decoder_layers": sum("weight_ih" in name for name in weights),
        "pad_token_id": 0,
        "encoder_config": encoder_config,
    }
    if "prompt_kernel.0.weight" in weights:
        config["prompt_intermediate_size"] = len(weights["prompt_kernel.0.weight"])
    return config_class(**config)


def build_processor(kind: Kind, archive: Archive, folder: Path):
    """Front-end and tokenizer as transformers stores them."""
    mels = int(archive.config["encoder"]["feat_in"])
    tokenizer = build_tokenizer(kind, archive.tokenizer, folder)
    processor_class = getattr(transformers, kind.processor_class)
    if not kind.streaming:
        extractor = transformers.ParakeetFeatureExtractor(feature_size=mels)
        return processor_class(extractor, tokenizer, decoder_type=kind.decoder_type)
    extractor = transformers.NemotronAsrStreamingFeatureExtractor(feature_size=mels)
    contexts = [int(right) for _, right in archive.config["encoder"]["att_context_size"]]
    options: dict[str, Any] = {"supported_num_lookahead_tokens": contexts}
    if kind.name == "nemotron3_5_asr":
        dictionary = archive.config["model_defaults"]["prompt_dictionary"]
        options["prompt_dictionary"] = {key: int(value) for key, value in dictionary.items()}
    return processor_class(extractor, tokenizer, **options)


def build_tokenizer(kind: Kind, model: bytes, folder: Path):
    """Convert the sentencepiece model to tokenizer.json, with the blank as one more special token."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.model"
    path.write_bytes(model)
    converted = ParakeetConverter(str(path)).converted()
    path.unlink()
    special = "<pad>" if kind.decoder_type == "ctc" else "<blank>"
    converted.add_special_tokens([AddedToken(special, special=True, normalized=False)])
    pad = special if kind.decoder_type == "ctc" else "<unk>"
    return transformers.ParakeetTokenizer(tokenizer_object=converted, unk_token="<unk>", pad_token=pad)


def run_kind(kind: Kind, model, processor, audio, nemo: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """Encoder output and greedy tokens for the three clips, and how they compare with NeMo's."""
    clips = [samples[:length].numpy() for samples, length in zip(*audio, strict=True)]
    inputs = dict(processor(clips, sampling_rate=SAMPLE_RATE))
    if "prompts" in nemo:
        inputs["prompt_ids"] = nemo["prompts"]
    steps = nemo["encoder_lengths"]
    tensors = encode(model, inputs) | {"encoder_lengths": steps}
    tokens = decode(kind, model, inputs)
    tensors |= {"tokens": padded(tokens, torch.int64), "token_counts": counts(tokens)}
    key = "ctc_token" if kind.decoder_type == "ctc" else "token"
    rows = zip(nemo[f"{key}s"], nemo[f"{key}_counts"].tolist(), strict=True)
    # the tokens are collapsed already: grouping would merge repeats once more
    texts = [processor.tokenizer.decode(row, skip_special_tokens=True, group_tokens=False) for row in tokens]
    return tensors, {
        "source": kind.source,
        "transformers": transformers.__version__,
        "texts": texts,
        "largest_difference_to_nemo": largest_difference(tensors["encoder"], nemo["encoder"], steps.tolist()),
        "tokens_equal_nemo": tokens == [row[:count].tolist() for row, count in rows],
    }


def encode(model, inputs: dict[str, Any]) -> Tensors:
    """Input of the heads: encoder output [B, T, D], after the language prompt if the model has prompts."""
    names = ("input_features", "attention_mask", "num_lookahead_tokens")
    encoded = model.encoder(**{name: inputs[name] for name in names if name in inputs}).last_hidden_state
    if "prompt_ids" not in inputs:
        return {"encoder": encoded}
    slots = torch.nn.functional.one_hot(inputs["prompt_ids"], model.config.num_prompts).float()
    slots = slots[:, None].expand(-1, encoded.shape[1], -1)
    return {"encoder": model.prompt_projector(torch.cat([encoded, slots], -1)), "unprompted": encoded}


def largest_difference(got: torch.Tensor, expected: torch.Tensor, lengths: list[int]) -> float:
    """Largest difference over the valid steps."""
    rows = zip(got, expected, lengths, strict=True)
    return max(float((one[:length] - other[:length]).abs().max()) for one, other, length in rows)


def decode(kind: Kind, model, inputs: dict[str, Any]) -> list[list[int]]:
    """Greedy tokens, clip by clip: in a batch, finished TDT rows would go on emitting."""
    rows = []
    for row in range(len(inputs["input_features"])):
        frames = int(inputs["attention_mask"][row].sum())
        one = {key: value[row : row + 1] if torch.is_tensor(value) else value for key, value in inputs.items()}
        one["input_features"] = one["input_features"][:, :frames]
        one["attention_mask"] = one["attention_mask"][:, :frames]
        rows.append(decode_one(kind, model, one))
    return rows


def decode_one(kind: Kind, model, inputs: dict[str, Any]) -> list[int]:
    """Greedy tokens of one clip, without blanks."""
    if kind.decoder_type == "ctc":
        ids = model(**inputs).logits[0].argmax(-1).tolist()
        blank = model.config.pad_token_id
        previous = [blank, *ids[:-1]]
        return [token for token, before in zip(ids, previous, strict=True) if token not in (blank, before)]
    sequence = model.generate(**inputs).sequences[0].tolist()
    return [token for token in sequence if token != model.config.blank_token_id]


if __name__ == "__main__":
    main()
