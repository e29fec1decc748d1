"""Writes Conure's random checkpoint with NeMo, in the formats of other projects. Runs in NeMo's environment.

    python -m bench.peers.make_nemo --model CONURE_FOLDER --out FOLDER

FOLDER gets parakeet.nemo for NeMo and transformers, onnx-asr/ as that project's docs/conversion.md has it, and
sherpa-onnx/ as that project's scripts/nemo/parakeet-tdt-0.6b-v3/export_onnx.py has it; `make_int8` quantises both.
"""

import argparse
import json
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import nemo.collections.asr as nemo_asr
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tools.parity.families import FAMILIES, Size, model_config
from tools.parity.tokenizer import write_vocabularies

NEMO_NAMES = {
    r"^predictor\.embedding\.": "decoder.prediction.embed.",
    r"^predictor\.lstm\.": "decoder.prediction.dec_rnn.lstm.",
    r"^joint\.head\.": "joint.joint_net.2.",
}
POINTWISE = re.compile(r"encoder\.layers\.\d+\.conv\.pointwise_conv[12]\.weight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = build(options.model, options.out)
    model.save_to(str(options.out / "parakeet.nemo"))
    with torch.inference_mode():
        make_onnx_asr(model, options.out / "onnx-asr")
        make_sherpa(model, options.out / "sherpa-onnx")


def build(folder: Path, out: Path):
    """NeMo's model with Conure's weights; every tensor must have a counterpart."""
    network = json.loads((folder / "config.json").read_text())["network"]
    tokenizer = out / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    shutil.copy(folder / "tokenizer.model", tokenizer)
    write_vocabularies(tokenizer)
    encoder = network["encoder"]
    size = Size(
        encoder["layers"], encoder["width"], encoder["heads"], 256, network["joint_width"], network["vocabulary"]
    )
    family = next(family for family in FAMILIES if family.name == "tdt")
    model = nemo_asr.models.EncDecRNNTBPEModel(cfg=OmegaConf.create(model_config(family, size, str(tokenizer))))
    weights = {nemo_name(name): nemo_shape(name, t) for name, t in load_file(folder / "model.safetensors").items()}
    own = model.state_dict()
    kept = {name: t for name, t in own.items() if name.endswith("num_batches_tracked") or name.startswith("preproc")}
    model.load_state_dict(weights | kept)
    model.preprocessor.featurizer.dither = 0.0
    return model.eval()


def nemo_name(name: str) -> str:
    for pattern, replacement in NEMO_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def nemo_shape(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:, :, None] if POINTWISE.fullmatch(name) else tensor


def make_onnx_asr(model, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    model.export(str(folder / "model.onnx"))
    with (folder / "vocab.txt").open("w") as file:
        file.writelines(f"{token} {index}\n" for index, token in enumerate([*model.tokenizer.vocab, "<blk>"]))
    config = {"model_type": "nemo-conformer-tdt", "features_size": 128, "subsampling_factor": 8}
    (folder / "config.json").write_text(json.dumps(config))


def make_sherpa(model, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "tokens.txt").open("w") as file:
        file.writelines(f"{token} {index}\n" for index, token in enumerate([*model.joint.vocabulary, "<blk>"]))
    model.encoder.export(str(folder / "encoder.onnx"))
    model.decoder.export(str(folder / "decoder.onnx"))
    model.joint.export(str(folder / "joiner.onnx"))
    facts = {
        "vocab_size": model.decoder.vocab_size,
        "normalize_type": model.cfg.preprocessor.normalize,
        "pred_rnn_layers": model.decoder.pred_rnn_layers,
        "pred_hidden": model.decoder.pred_hidden,
        "subsampling_factor": 8,
        "model_type": "EncDecRNNTBPEModel",
        "version": "2",
        "model_author": "NeMo",
        "url": "https://huggingface.co/nvidia/parakeet-tdt-0.6b-v3",  # sherpa-onnx tells TDT by it
        "comment": "random weights",
        "feat_dim": 128,
    }
    (folder / "metadata.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
