"""A checkpoint is converted once, found again, and made anew when the folder does not fit."""

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
from conure.engine.convert.converted_folder import converted_folder, fingerprint, is_usable, read_converted
from conure.engine.convert.onnx_graph import Graph, save_graph
from conure.engine.convert.quantize import Affine, Int8
from conure.engine.convert.saturation import adds_in_16_bits, probe, saturates
from conure.errors import ModelError
from conure.models.checkpoint import Checkpoint
from conure.models.loader import read_checkpoint
from conure.models.preemptible import run_to_end
from tests.full_disk import most_bytes_a_file
from tests.parity.references import FOLDER, recordings


class Loader:
    """Reads a checkpoint and counts how often."""

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
    folders = {converted_folder(source, "int8", tmp_path / "cache", load) for _ in range(3)}
    assert load.calls == 1
    encoded, counts = run_to_end(
        CpuClipRunner(folders.pop(), threads=1).encode(*(part.numpy() for part in recordings()))
    )
    assert np.isfinite(encoded).all()
    assert counts.min() > 0


def test_precisions_have_folders_of_their_own(source: Path, tmp_path: Path) -> None:
    load = Loader(source)
    assert converted_folder(source, "int8", tmp_path, load) != converted_folder(source, "fp32", tmp_path, load)
    assert load.calls == 2


def test_the_fingerprint_follows_contents_and_not_the_place(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "other.nemo"
    moved.parent.mkdir()
    shutil.copy2(source, moved)
    assert fingerprint(moved) == fingerprint(source)
    data = bytearray(moved.read_bytes())
    data[len(data) // 2] ^= 1
    moved.write_bytes(data)
    assert fingerprint(moved) != fingerprint(source)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "model.safetensors", "config.json", "onnx.json"])
@pytest.mark.parametrize("harm", ["cut", "changed", "missing"])
def test_a_damaged_folder_is_not_used(ready: Path, tmp_path: Path, name: str, harm: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(ready, folder)
    assert is_usable(folder)
    path = folder / name
    data = path.read_bytes()
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "changed":
        path.write_bytes(data[:20] + b"\xff\xfe" + data[22:])
    else:
        path.unlink()
    assert not is_usable(folder)


def test_a_damaged_folder_is_made_anew(source: Path, tmp_path: Path) -> None:
    load = Loader(source)
    folder = converted_folder(source, "int8", tmp_path, load)
    (folder / "encoder.weights").write_bytes(b"")
    assert converted_folder(source, "int8", tmp_path, load) == folder
    assert load.calls == 2
    assert is_usable(folder)


def test_folders_of_another_exporter_are_not_used(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "EXPORT_VERSION", converted.EXPORT_VERSION + 1)
    assert not is_usable(ready)


def test_a_broken_conversion_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "export_network", fail)
    with pytest.raises(ModelError, match=r"no space is left in .* needed, .* free"):
        converted_folder(source, "int8", tmp_path / "cache", Loader(source))
    left = [path.name for path in (tmp_path / "cache" / "onnx").iterdir() if not path.name.endswith(".lock")]
    assert left == []


def test_a_cache_that_fills_up_is_named(source: Path, tmp_path: Path) -> None:
    """Whatever was being written: graphs, packed arrays, or tensors by a library with errors of its own."""
    biggest = max(path.stat().st_size for path in source_files(source, tmp_path))
    for most in (100, biggest // 4, biggest - 1):
        with most_bytes_a_file(most), pytest.raises(ModelError, match=r"no space is left in .* needed, .* free"):
            converted_folder(source, "fp32", tmp_path / "cache", Loader(source))


def source_files(source: Path, tmp_path: Path) -> list[Path]:
    """What it is converted to."""
    return list(converted_folder(source, "fp32", tmp_path / "whole", Loader(source)).iterdir())


def test_a_cache_that_cannot_be_written_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(ModelError, match="cannot be converted into"):
        converted_folder(source, "int8", tmp_path / "cache", Loader(source))


def test_what_is_kept_is_enough_to_decode(ready: Path) -> None:
    original = read_checkpoint(FOLDER / "tdt_ctc.nemo")
    kept = read_converted(ready)
    assert kept.checkpoint.config == original.config
    assert kept.checkpoint.tokenizer.pieces == original.tokenizer.pieces
    assert {name.split(".")[0] for name in kept.heads()} == {"joint", "ctc_head"}
    samples = torch.randn(1, 4000)
    own = LogMel(original.config.mel, original.window, original.filterbank)
    assert np.array_equal(kept.feature_extractor().log_mel(samples.numpy()), own.log_mel(samples).numpy())


def test_this_processor_is_asked_how_it_adds(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full bytes are not used where their sums saturate; 7 bits are right everywhere."""
    reduced = json.loads((ready / "onnx.json").read_text())["reduced"]
    assert reduced == saturates(probe()) == adds_in_16_bits()
    monkeypatch.setattr(converted, "saturates", lambda graph: True)
    assert is_usable(ready) == reduced


@pytest.mark.parametrize("reduced", [False, True])
def test_weights_are_rounded_by_column(reduced: bool, tmp_path: Path) -> None:
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
        assert column_error.max() > 0.03  # why weights have 7 bits there
    else:
        assert column_error.max() < (0.03 if reduced else 0.02)
