"""Folders in Conure's format are read as they were written, and their contents are validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conure.errors import BadCheckpoint
from conure.models.checkpoint import Checkpoint
from conure.models.conure_file import is_conure_folder, read, save
from conure.models.loader import build_network, read_checkpoint
from conure.text.tokenizer import LabelTokenizer
from tests.models.networks import OFFLINE, STREAMING, mel, network

DATA = Path(__file__).parents[1] / "data" / "parity"
NAMES = sorted([path.name for path in DATA.glob("*.nemo")] + [path.name for path in DATA.glob("hf_*") if path.is_dir()])


def trained(seed: int = 0, **heads: Any) -> Checkpoint:
    """A network after training: with counters in its state."""
    net = network(STREAMING if heads.get("prompts") else OFFLINE, seed, **(heads or {"ctc": True}))
    tokenizer = LabelTokenizer([chr(97 + index) for index in range(20)])
    return Checkpoint(net.config, dict(net.state_dict()), tokenizer, languages=("en",), name="ours")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DATA / name)
    save(checkpoint, tmp_path)
    again = read(tmp_path)
    assert again.config == checkpoint.config
    assert again.tensors.keys() == checkpoint.tensors.keys()
    for ours, theirs in ((again.tensors, checkpoint.tensors), ({0: again.window}, {0: checkpoint.window})):
        assert all(_equal(ours[key], theirs[key]) for key in theirs)
    assert _equal(again.filterbank, checkpoint.filterbank)
    assert again.tokenizer.pieces == checkpoint.tokenizer.pieces
    assert (again.languages, again.family, again.name) == (checkpoint.languages, checkpoint.family, checkpoint.name)


def _equal(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_a_trained_network_has_the_same_outputs_after_a_round_trip(tmp_path: Path) -> None:
    checkpoint = trained()
    save(checkpoint, tmp_path)
    before, after = network(OFFLINE, ctc=True), build_network(read(tmp_path))[0]
    features, frames = mel([40, 31])
    with torch.inference_mode():
        outputs = [net.encode(features, frames)[0] for net in (before, after)]
    # Mapped weights may lie at other alignments, where vector instructions add in another order.
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_small_and_loaded_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    save(trained(), tmp_path / "full")
    save(trained(), tmp_path / "half", dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert {tensor.dtype for tensor in read(tmp_path / "half").tensors.values()} == {dtype}
    loaded = build_network(read(tmp_path / "half"))[0]
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_folder_without_config_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(trained(), tmp_path)
    assert is_conure_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    assert not is_conure_folder(tmp_path)


def test_saving_over_a_folder_that_is_in_use(tmp_path: Path) -> None:
    save(trained(0), tmp_path)
    first = read(tmp_path)
    weights = {name: tensor.clone() for name, tensor in first.tensors.items()}
    save(trained(1), tmp_path)
    assert all(torch.equal(first.tensors[name], tensor) for name, tensor in weights.items())
    assert not all(torch.equal(read(tmp_path).tensors[name], tensor) for name, tensor in weights.items())


def change(folder: Path, path: str, value: Any) -> None:
    settings = json.loads((folder / "config.json").read_text())
    *parents, last = path.split(".")
    part = settings
    for key in parents:
        part = part[key]
    part[last] = value
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "version 2"),
        ("network", None, "network in config.json is None"),
        ("network.vocabulary", "many", "network.vocabulary"),
        ("network.vocabulary", 21, "the network 21"),
        ("network.encoder.layers", 10**9, "network.encoder"),
        ("network.encoder.width", 10**9, "network.encoder"),
        ("network.encoder.bias", 1, "network.encoder.bias"),
        ("network.encoder.style", "none", "network.encoder.style"),
        ("network.encoder.contexts", [], "network.encoder.contexts"),
        ("network.encoder.contexts", [{"left": "x"}], "network.encoder.contexts.left"),
        ("network.encoder.novelty", 1, "newer Conure"),
        ("network.mel.hop", 0, "network.mel.hop"),
        ("network.durations", [1, 2], "network.durations"),
        ("network.prompt_ids", [["en", 1, 2]], "network.prompt_ids"),
        ("tokenizer", "../labels.json", "outside the folder"),
        ("tokenizer", "tokenizer.model", "tokenizer.model"),
        ("languages", "en", "languages"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path: Path, path: str, value: Any, message: str) -> None:
    save(trained(), tmp_path)
    change(tmp_path, path, value)
    with pytest.raises(BadCheckpoint) as caught:
        read(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_and_transducers_too(tmp_path: Path) -> None:
    heads = {"predictor_width": 16, "predictor_layers": 1, "joint_width": 12, "prompts": 4, "prompt_ids": (("en", 3),)}
    save(trained(**heads), tmp_path)
    assert read(tmp_path).config.prompt_ids == (("en", 3),)
