"""Folders of transformers: complete ones are read, broken and malicious ones are refused with one line."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conure.errors import BadCheckpoint
from conure.models.config import AttentionContext
from conure.models.loader import read_checkpoint

DATA = Path(__file__).parents[1] / "data" / "parity"
TDT, RNNT, CTC, STREAMING = "hf_parakeet_tdt", "hf_parakeet_rnnt", "hf_parakeet_ctc", "hf_nemotron_asr_streaming"


@pytest.fixture
def copied(tmp_path: Path) -> Any:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return copy


def change(path: Path, **settings: Any) -> None:
    """Changes settings of a JSON file by dotted path, with __ for dots; ... removes one."""
    content = json.loads(path.read_text())
    for name, value in settings.items():
        *parents, last = name.split("__")
        part = content
        for key in parents:
            part = part.setdefault(key, {})
        part.pop(last, None) if value is ... else part.__setitem__(last, value)
    path.write_text(json.dumps(content))


def shard(folder: Path) -> Path:
    """Splits model.safetensors in two."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards_read_like_one_file(copied: Any) -> None:
    folder = copied(TDT)
    shard(folder)
    whole, split = read_checkpoint(DATA / TDT), read_checkpoint(folder)
    assert split.config == whole.config
    assert all(torch.equal(split.tensors[name], tensor) for name, tensor in whole.tensors.items())


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/x.safetensors", "a/b.safetensors", "weights.bin", ".."])
def test_a_shard_outside_the_folder_is_refused(copied: Any, name: str) -> None:
    folder = copied(TDT)
    index = shard(folder)
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {next(iter(places)): name}}))
    with pytest.raises(BadCheckpoint, match="outside the folder"):
        read_checkpoint(folder)


def test_a_missing_shard_and_a_stray_tensor_are_named(copied: Any) -> None:
    folder = copied(TDT)
    index = shard(folder)
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": dict(list(places.items())[1:])}))
    with pytest.raises(BadCheckpoint, match="does not place"):
        read_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": places | {"more": next(iter(places.values()))}}))
    with pytest.raises(BadCheckpoint, match="lack more"):
        read_checkpoint(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadCheckpoint):
        read_checkpoint(folder)


def test_a_pickle_is_never_opened(copied: Any) -> None:
    folder = copied(TDT)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(BadCheckpoint, match=r"no model\.safetensors") as caught:
        read_checkpoint(folder)
    assert "is a pickle" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01\x02", id="short"),
        pytest.param(struct.pack("<Q", 2**60) + b"{}", id="header size"),
        pytest.param(struct.pack("<Q", 5) + b"{nope", id="header"),
        pytest.param(struct.pack("<Q", 2) + b"{}" + b"rest", id="rest"),
    ],
)
def test_broken_safetensors_are_refused(copied: Any, data: bytes) -> None:
    folder = copied(TDT)
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(BadCheckpoint) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_claims_more_than_is_stored_is_refused(copied: Any) -> None:
    folder = copied(TDT)
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(BadCheckpoint, match="not a complete safetensors file"):
        read_checkpoint(folder)


def test_truncated_safetensors_are_refused(copied: Any) -> None:
    folder = copied(TDT)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="not a complete safetensors file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"model_type": "parakeet_tdt", "encoder_config": 3}']
)
def test_a_broken_config_is_refused(copied: Any, text: bytes) -> None:
    folder = copied(TDT)
    (folder / "config.json").write_bytes(text)
    with pytest.raises(BadCheckpoint) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("whisper", "'whisper'"), ("nemotron3_diarization", "diarization"), ("nemo_speechlm", "language model")],
)
def test_other_model_types_are_refused_by_name(copied: Any, kind: str, message: str) -> None:
    folder = copied(TDT)
    change(folder / "config.json", model_type=kind)
    with pytest.raises(BadCheckpoint, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "setting",
    [
        {"encoder_config__hidden_act": "gelu"},
        {"encoder_config__subsampling_factor": 4},
        {"hidden_act": "tanh"},
        {"durations": [0, 1, "x"]},
        {"max_symbols_per_step": -1},
    ],
)
def test_settings_with_other_results_are_refused(copied: Any, setting: dict[str, Any]) -> None:
    folder = copied(TDT)
    change(folder / "config.json", **setting)
    with pytest.raises(BadCheckpoint, match=next(iter(setting)).rpartition("__")[2]):
        read_checkpoint(folder)


@pytest.mark.parametrize("padding", [0, 2])
def test_trap_10_padding_is_not_the_blank(copied: Any, padding: int) -> None:
    folder = copied(TDT)
    change(folder / "config.json", pad_token_id=padding)
    assert read_checkpoint(folder).config.blank == 64


def test_trap_10_a_blank_that_is_not_the_last_token_is_refused(copied: Any) -> None:
    folder = copied(RNNT)
    change(folder / "config.json", blank_token_id=0)
    with pytest.raises(BadCheckpoint, match="blank_token_id 0"):
        read_checkpoint(folder)
    folder = copied(CTC)
    change(folder / "config.json", pad_token_id=2)
    with pytest.raises(BadCheckpoint, match="pad_token_id 2"):
        read_checkpoint(folder)


def test_trap_10_the_blank_in_the_tokenizer_is_not_a_piece() -> None:
    checkpoint = read_checkpoint(DATA / TDT)
    assert len(checkpoint.tokenizer.pieces) == checkpoint.config.vocabulary == 64
    assert "<blank>" not in checkpoint.tokenizer.pieces


def test_trap_22_the_sliding_window_includes_the_step_itself() -> None:
    contexts = read_checkpoint(DATA / STREAMING).config.encoder.contexts
    assert contexts == tuple(AttentionContext(70, right) for right in (13, 6, 1, 0))


def test_the_default_lookahead_comes_first(copied: Any) -> None:
    folder = copied(STREAMING)
    change(folder / "config.json", encoder_config__sliding_window=57, encoder_config__default_num_lookahead_tokens=3)
    change(folder / "processor_config.json", supported_num_lookahead_tokens=[3, 0, 6, 13])
    contexts = read_checkpoint(folder).config.encoder.contexts
    assert contexts == tuple(AttentionContext(56, right) for right in (3, 0, 6, 13))


def test_trap_11_a_window_that_is_no_multiple_of_the_chunk_is_refused(copied: Any) -> None:
    folder = copied(STREAMING)
    change(folder / "config.json", encoder_config__sliding_window=70)
    with pytest.raises(BadCheckpoint, match="not a multiple of the chunk"):
        read_checkpoint(folder)


def test_streaming_models_are_not_normalised_and_offline_ones_are() -> None:
    assert read_checkpoint(DATA / STREAMING).config.mel.normalize == "NA"
    assert read_checkpoint(DATA / TDT).config.mel.normalize == "per_feature"


def test_a_folder_without_processor_or_tokenizer(copied: Any) -> None:
    folder = copied(TDT)
    (folder / "processor_config.json").unlink()
    assert read_checkpoint(folder).config == read_checkpoint(DATA / TDT).config
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"neither tokenizer\.json"):
        read_checkpoint(folder)


def test_weights_stored_in_half_precision_keep_their_type(copied: Any) -> None:
    assert {tensor.dtype for tensor in read_checkpoint(DATA / TDT).tensors.values()} == {torch.bfloat16}
