"""A checkpoint is converted once, reused, and converted again if its folder is unusable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from conure.audio.features import LogMel
from conure.engine.backends.cpu.clip_runner import CpuClipRunner
from conure.engine.convert import convert as convert_module
from conure.engine.convert import converted_folder as converted
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import ensure_converted, fingerprint, is_usable, read_converted
from conure.engine.convert.onnx_graph import Graph, save_graph
from conure.engine.convert.quantize import Affine, Int8
from conure.engine.convert.saturation import adds_in_16_bits, saturates, saturation_probe
from conure.errors import ModelError
from conure.models.checkpoint import Checkpoint
from conure.models.loader import read_checkpoint
from conure.models.preemptible import run_to_end
from tests.full_disk import most_bytes_a_file
from tests.parity.references import FOLDER, recordings


class Loader:
    """Reads a checkpoint and counts the calls."""

    def __init__(self, source: Path) -> None:
        self.source, self.calls = source, 0

    def __call__(self) -> Checkpoint:
        self.calls += 1
        return read_checkpoint(self.source)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copy(FOLDER / "tdt_ctc.nemo", tmp_path / "model.nemo"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted folder; copy it before changing it."""
    folder = tmp_path_factory.mktemp("ready") / "int8"
    convert(read_checkpoint(FOLDER / "tdt_ctc.nemo"), folder, "int8")
    return folder


def test_a_checkpoint_is_converted_once(source: Path, tmp_path: Path) -> None:
    load = Loader(source)
    folders = {ensure_converted(source, "int8", tmp_path / "cache", load) for _ in range(3)}
    assert load.calls == 1
    encoded, counts = run_to_end(
        CpuClipRunner(folders.pop(), threads=1).encode(*(part.numpy() for part in recordings()))
    )
    assert np.isfinite(encoded).all()
    assert counts.min() > 0


def test_each_precision_has_its_own_folder(source: Path, tmp_path: Path) -> None:
    load = Loader(source)
    assert ensure_converted(source, "int8", tmp_path, load) != ensure_converted(source, "fp32", tmp_path, load)
    assert load.calls == 2


def test_fingerprint_depends_on_contents_only(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "other.nemo"
    moved.parent.mkdir()
    shutil.copy2(source, moved)
    assert fingerprint(moved) == fingerprint(source)
    data = bytearray(moved.read_bytes())
    data[len(data) // 2] ^= 1
    moved.write_bytes(data)
    assert fingerprint(moved) != fingerprint(source)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "model.safetensors", "config.json", "onnx.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_folder_is_unusable(ready: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(ready, folder)
    assert is_usable(folder)
    path = folder / name
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        path.write_bytes(data[:20] + b"\xff\xfe" + data[22:])
    else:
        path.unlink()
    assert not is_usable(folder)


def test_a_damaged_folder_is_converted_again(source: Path, tmp_path: Path) -> None:
    load = Loader(source)
    folder = ensure_converted(source, "int8", tmp_path, load)
    (folder / "encoder.weights").write_bytes(b"")
    assert ensure_converted(source, "int8", tmp_path, load) == folder
    assert load.calls == 2
    assert is_usable(folder)


def test_folders_of_another_version_are_unusable(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "EXPORT_VERSION", converted.EXPORT_VERSION + 1)
    assert not is_usable(ready)


def test_a_failed_conversion_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "export_network", fail)
    with pytest.raises(ModelError, match=r"no space is left in .* needed, .* free"):
        ensure_converted(source, "int8", tmp_path / "cache", Loader(source))
    remaining = [path.name for path in (tmp_path / "cache" / "onnx").iterdir() if not path.name.endswith(".lock")]
    assert remaining == []


def test_a_full_disk_is_reported(source: Path, tmp_path: Path) -> None:
    """The disk may fill up while graphs, packed arrays or safetensors are written, which raise different errors."""
    biggest = max(path.stat().st_size for path in converted_files(source, tmp_path))
    for max_bytes in (100, biggest // 4, biggest - 1):
        with most_bytes_a_file(max_bytes), pytest.raises(ModelError, match=r"no space is left in .* needed, .* free"):
            ensure_converted(source, "fp32", tmp_path / "cache", Loader(source))


def converted_files(source: Path, tmp_path: Path) -> list[Path]:
    """Files of the converted model."""
    return list(ensure_converted(source, "fp32", tmp_path / "whole", Loader(source)).iterdir())


def test_an_unwritable_cache_is_reported(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(ModelError, match="cannot be converted into"):
        ensure_converted(source, "int8", tmp_path / "cache", Loader(source))


def test_converted_folder_is_sufficient_to_decode(ready: Path) -> None:
    original = read_checkpoint(FOLDER / "tdt_ctc.nemo")
    converted_model = read_converted(ready)
    assert converted_model.checkpoint.config == original.config
    assert converted_model.checkpoint.tokenizer.pieces == original.tokenizer.pieces
    assert {name.split(".")[0] for name in converted_model.heads()} == {"joint", "ctc_head"}
    samples = torch.randn(1, 4000)
    log_mel = LogMel(original.config.mel, original.window, original.filterbank)
    assert np.array_equal(
        converted_model.feature_extractor().log_mel(samples.numpy()), log_mel.log_mel(samples).numpy()
    )


def test_saturation_is_detected_on_this_processor(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8-bit weights are not used on processors that saturate; 7-bit weights are accurate everywhere."""
    reduced = json.loads((ready / "onnx.json").read_text())["reduced"]
    assert reduced == saturates(saturation_probe()) == adds_in_16_bits()
    monkeypatch.setattr(converted, "saturates", lambda graph: True)
    assert is_usable(ready) == reduced


@pytest.mark.parametrize("reduced", [False, True])
def test_weights_are_quantised_by_column(reduced: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 64) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 2.0])[:, None]

    def write(graph: Graph) -> None:
        x = graph.input("x", np.float32, ["M", 64])
        products = Int8(reduced)
        y = products.layer(graph, products.operand(graph, x), Affine(weight, torch.ones(5)))
        graph.output("y", y, np.float32, ["M", 5])

    save_graph(tmp_path / "graph.onnx", write)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    x = torch.randn(200, 64)
    got = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    expected = x @ weight.T + 1
    column_error = (got - expected).norm(dim=0) / (expected - 1).norm(dim=0).clamp(min=1e-9)
    if adds_in_16_bits() and not reduced:
        assert column_error.max() > 0.03  # the reason for 7-bit weights
    else:
        assert column_error.max() < (0.03 if reduced else 0.02)
