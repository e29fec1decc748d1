"""The native stream encoder matches the ONNX graph with the same weights, for streams of any age and any batch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conure.engine.backends.cpu.int8_weights import INT8_ENCODER_FILE, Int8Weights
from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.convert import converted_folder as converted
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import is_usable
from conure.engine.convert.pack_encoder import supports_native_kernels
from conure.models.config import AttentionContext, EncoderConfig
from conure.native.library import has_native_kernels
from tests.engine.test_stream_runner import SLOTS, SPOKEN, check_flushes, check_rows_are_independent, random_steps
from tests.models.networks import STREAMING, checkpoint_of, network

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="native kernels need a compiler and a processor with VNNI"
)

RELATIVE = 0.03
"""Largest accepted error relative to the norm of a chunk of the graph: from float16 keys and values, and from the
rounding of activations that they change."""

SHORT = tuple(AttentionContext(9, right) for right in (3, 1, 0))
WIDE = replace(STREAMING, width=64, channels=16, contexts=SHORT)
SHAPES: dict[str, EncoderConfig] = {
    "streaming": replace(WIDE, contexts=STREAMING.contexts),
    "batch norm and biases": replace(WIDE, norm="batch_norm", bias=True, scale_input=True),
    "single speaker": replace(WIDE, speaker_layers=(0,)),
    "wider heads": replace(WIDE, width=128, heads=2),
    "prompted": WIDE,
}
CASES = [(name, chunk) for name in SHAPES for chunk in ((1, 2, 7, 14) if name == "streaming" else (1, 2, 4))]


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[str, Path]]:
    """A converted network of each shape."""
    with tempfile.TemporaryDirectory() as root:
        paths = {name: Path(root) / name for name in SHAPES}
        for name, folder in paths.items():
            net = network(SHAPES[name], prompts=5 * (name == "prompted"), **SPOKEN)
            convert(checkpoint_of(net), folder, "int8")
        yield paths


@pytest.mark.parametrize(("name", "chunk"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_match_the_graph(folders: dict[str, Path], name: str, chunk: int, threads: int) -> None:
    native = CpuStreamRunner(folders[name], threads)
    graph = CpuStreamRunner(folders[name], threads=1, kernels=False)
    assert native.description.startswith("native int8")
    assert graph.description.startswith("onnx int8")
    states, compared = (native.allocate(SLOTS), graph.allocate(SLOTS)), 0
    for step in random_steps(name, chunk, 30, seed=chunk):
        for got, expected in zip(step.run(native, states[0]), step.run(graph, states[1]), strict=True):
            assert float((got - expected).norm()) <= RELATIVE * float(expected.norm())
            compared += len(expected)
    assert compared > 30


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_rows_are_independent(folders: dict[str, Path], chunk: int) -> None:
    check_rows_are_independent(CpuStreamRunner(folders["streaming"], threads=2), chunk)


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
def test_a_flush_does_not_change_later_chunks(folders: dict[str, Path], chunk: int) -> None:
    check_flushes(CpuStreamRunner(folders["streaming"], threads=2), chunk)


def test_a_slot_needs_less_memory_than_in_the_graph(folders: dict[str, Path]) -> None:
    native, graph = (CpuStreamRunner(folders["streaming"], 1, kernels=kernels) for kernels in (True, False))
    assert native.allocate(SLOTS).encoder.bytes < 0.7 * graph.allocate(SLOTS).encoder.bytes


def test_a_folder_without_native_weights_is_unusable(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["streaming"], tmp_path / "copy")
    for suffix in (".packed", ".json"):
        (folder / INT8_ENCODER_FILE).with_suffix(suffix).unlink()
    manifest = json.loads((folder / converted.MANIFEST).read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if (folder / name).exists()}
    (folder / converted.MANIFEST).write_text(json.dumps(manifest))
    assert not is_usable(folder)
    assert CpuStreamRunner(folder, 1).description.startswith("onnx int8")
    monkeypatch.setattr(converted, "has_native_kernels", lambda: False)
    assert is_usable(folder)


def test_truncated_weights_are_unusable(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["streaming"], tmp_path / "copy")
    data = (folder / INT8_ENCODER_FILE).read_bytes()
    (folder / INT8_ENCODER_FILE).write_bytes(data[: len(data) // 2])
    assert not is_usable(folder)


def test_unsupported_sizes_have_no_native_weights(tmp_path: Path) -> None:
    assert supports_native_kernels(network(WIDE))
    narrow = (STREAMING, replace(WIDE, heads=8), replace(WIDE, channels=8))
    for config in narrow:
        assert not supports_native_kernels(network(config))
    convert(checkpoint_of(network(STREAMING, **SPOKEN)), tmp_path, "int8")
    assert not Int8Weights.exists_in(tmp_path)
    assert is_usable(tmp_path)
