"""NVIDIA's published models load: complete configs with all keys, in their archives and folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conure.decoding.ctc import decode_ctc
from conure.decoding.transducer import decode_transducer
from conure.errors import BadCheckpoint
from conure.models import catalog
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext
from conure.models.loader import build_network, read_checkpoint
from tests.models.published import FOLDERS, MODELS, PROMPTS, Folder, Published
from tests.models.publishing import (
    LAYERS,
    change_config,
    folder_tensors,
    nemo_tensors,
    pieces,
    write_archive,
    write_folder,
)


def run_network(checkpoint: Checkpoint) -> None:
    """Builds the network and decodes a second of noise."""
    network, front = build_network(checkpoint)
    prompts = torch.tensor([101]) if checkpoint.config.prompts else None
    with torch.inference_mode():
        mel, frames = front(torch.randn(1, 16_000), torch.tensor([16_000]))
        encoded, counts = network.encode(mel, frames, prompts)
        assert encoded.isfinite().all()
        decode = decode_ctc if checkpoint.default_head == "ctc" else decode_transducer
        tokens, _ = decode(network, encoded, counts)
    checkpoint.tokenizer.decode([token.id for row in tokens for token in row])


def tensor_count(count: int, names: list[str], layers: int) -> int:
    """Number of tensors of a model with `layers` layers, computed from a smaller one."""
    each = sum(name.startswith("encoder.layers.0.") for name in names)
    return count + each * (layers - LAYERS)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_published_archive_loads(model: Published, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_archive(model, tmp_path / f"{model.name}.nemo"))
    config, encoder = checkpoint.config, checkpoint.config.encoder
    assert config.vocabulary == model.vocabulary
    assert checkpoint.tokenizer.pieces == pieces(model.vocabulary)
    assert (encoder.features, config.mel.normalize) == (model.mels, "NA" if model.streaming else "per_feature")
    assert encoder.bias == model.encoder.get("use_bias", True)
    assert encoder.scale_input == model.xscaling
    assert encoder.is_cache_aware == model.streaming
    assert config.durations == ((0, 1, 2, 3, 4) if model.tdt else ())
    assert config.predictor_layers == (0 if checkpoint.default_head == "ctc" else model.lstms)
    entry = catalog.find(model.name)
    if entry is not None:
        assert (checkpoint.family, checkpoint.default_head) == (entry.family, entry.head)
        assert encoder.is_cache_aware == entry.is_live
    run_network(checkpoint)


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.tensors], ids=lambda model: model.name)
def test_archives_are_written_with_the_tensors_that_were_published(model: Published) -> None:
    names = list(nemo_tensors(model))
    assert tensor_count(len(names), names, model.layers) == model.tensors


@pytest.mark.parametrize("folder", [one for one in FOLDERS.values() if one.tensors], ids=lambda folder: folder.name)
def test_folders_are_written_with_the_tensors_that_were_published(folder: Folder) -> None:
    names = list(folder_tensors(folder))
    assert tensor_count(len(names), names, folder.config["encoder_config"]["num_hidden_layers"]) == folder.tensors


def test_every_model_of_the_catalog_is_tested() -> None:
    assert {model.name for model in catalog.MODELS if model.repository} <= MODELS.keys()


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=lambda folder: folder.name)
def test_every_published_folder_loads(folder: Folder, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_folder(folder, tmp_path / folder.name))
    model = MODELS[folder.name]
    assert checkpoint.config.vocabulary == model.vocabulary
    assert checkpoint.family == catalog.resolve(folder.name).family
    assert checkpoint.config.encoder.scale_input == model.xscaling
    run_network(checkpoint)


@pytest.mark.parametrize("name", [name for name in FOLDERS if MODELS[name].streaming])
def test_a_folder_and_an_archive_of_a_model_have_the_same_properties(name: str, tmp_path: Path) -> None:
    archive = read_checkpoint(write_archive(MODELS[name], tmp_path / "model.nemo"))
    folder = read_checkpoint(write_folder(FOLDERS[name], tmp_path / "folder"))
    assert folder.config.encoder.contexts == archive.config.encoder.contexts
    assert folder.config.prompt_ids == archive.config.prompt_ids
    assert folder.languages == archive.languages


def test_the_long_form_model_has_a_global_step(tmp_path: Path) -> None:
    encoder = read_checkpoint(write_archive(MODELS["parakeet-tdt_ctc-1.1b"], tmp_path / "m.nemo")).config.encoder
    assert (encoder.local, encoder.global_tokens, encoder.contexts) == (True, 1, (AttentionContext(128, 128),))


def test_nemotron_lists_its_published_languages(tmp_path: Path) -> None:
    model = MODELS["nemotron-3.5-asr-streaming-0.6b"]
    checkpoint = read_checkpoint(write_archive(model, tmp_path / "m.nemo"))
    assert dict(checkpoint.config.prompt_ids) == PROMPTS
    assert checkpoint.languages == catalog.resolve(model.name).languages
    assert len(checkpoint.languages) == 40


@pytest.mark.parametrize("place", ["model_defaults", "train_ds", "validation_ds", None])
def test_the_prompt_dictionary_is_found_at_any_path(place: str | None, tmp_path: Path) -> None:
    """NeMo writes an empty dictionary if it found none."""
    model = replace(MODELS["nemotron-3.5-asr-streaming-0.6b"], vocabulary=1024)
    path = write_archive(model, tmp_path / "m.nemo")

    def move(settings: dict) -> None:
        for part in ("model_defaults", "train_ds"):
            del settings[part]["prompt_dictionary"]
        settings["model_defaults"]["prompt_dictionary"] = {}
        (settings if place is None else settings[place])["prompt_dictionary"] = PROMPTS

    assert dict(read_checkpoint(change_config(path, move)).config.prompt_ids) == PROMPTS


def test_a_prompt_without_a_dictionary_is_refused(tmp_path: Path) -> None:
    model = replace(MODELS["nemotron-3.5-asr-streaming-0.6b"], vocabulary=1024)

    def remove(settings: dict) -> None:
        for part in ("model_defaults", "train_ds"):
            del settings[part]["prompt_dictionary"]

    with pytest.raises(BadCheckpoint, match="no prompt_dictionary"):
        read_checkpoint(change_config(write_archive(model, tmp_path / "m.nemo"), remove))
