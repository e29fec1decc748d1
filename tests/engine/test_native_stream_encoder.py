"""The native kernels give what the graph gives of the same weights, for rows of any age, whoever is in the turn."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conure.engine.backends.cpu.int8_weights import FILE, Int8Weights
from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.convert import converted_folder as converted
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import is_usable
from conure.engine.convert.pack_encoder import is_packable
from conure.models.config import AttentionContext, EncoderConfig
from conure.native.library import has_native_kernels
from tests.engine.test_stream_runner import SLOTS, SPOKEN, check_flushes, check_rows_alone, turns
from tests.models.networks import STREAMING, checkpoint_of, network

pytestmark = pytest.mark.skipif(
    not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI"
)

RELATIVE = 0.03
"""Largest accepted error against the graph, relative to a chunk's norm: halves of keys and values, and what they turn
over when activations are rounded."""

SHORT = tuple(AttentionContext(9, right) for right in (3, 1, 0))
WIDE = replace(STREAMING, width=64, channels=16, contexts=SHORT)
SHAPES: dict[str, EncoderConfig] = {
    "streaming": replace(WIDE, contexts=STREAMING.contexts),
    "batch norm and biases": replace(WIDE, norm="batch_norm", bias=True, scale_input=True),
    "one speaker alone": replace(WIDE, speaker_layers=(0,)),
    "wider heads": replace(WIDE, width=128, heads=2),
    "prompted": WIDE,
}
CASES = [(name, chunk) for name in SHAPES for chunk in ((1, 2, 7, 14) if name == "streaming" else (1, 2, 4))]


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[str, Path]]:
    """Networks of each shape, converted."""
    with tempfile.TemporaryDirectory() as root:
        places = {name: Path(root) / name for name in SHAPES}
        for name, folder in places.items():
            net = network(SHAPES[name], prompts=5 * (name == "prompted"), **SPOKEN)
            convert(checkpoint_of(net), folder, "int8")
        yield places


@pytest.mark.parametrize(("name", "chunk"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_give_what_the_graph_gives(folders: dict[str, Path], name: str, chunk: int, threads: int) -> None:
    native = CpuStreamRunner(folders[name], threads)
    graph = CpuStreamRunner(folders[name], threads=1, kernels=False)
    assert native.description.startswith("native int8")
    assert graph.description.startswith("onnx int8")
    states, compared = (native.allocate(SLOTS), graph.allocate(SLOTS)), 0
    for turn in turns(name, chunk, 30, seed=chunk):
        for got, expected in zip(turn.run(native, states[0]), turn.run(graph, states[1]), strict=True):
            assert float((got - expected).norm()) <= RELATIVE * float(expected.norm())
            compared += len(expected)
    assert compared > 30


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_a_row_does_not_depend_on_the_others(folders: dict[str, Path], chunk: int) -> None:
    check_rows_alone(CpuStreamRunner(folders["streaming"], threads=2), chunk)


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
def test_a_flush_changes_nothing_of_what_is_encoded_after_it(folders: dict[str, Path], chunk: int) -> None:
    check_flushes(CpuStreamRunner(folders["streaming"], threads=2), chunk)


def test_a_row_takes_half_of_what_the_graph_takes(folders: dict[str, Path]) -> None:
    native, graph = (CpuStreamRunner(folders["streaming"], 1, kernels=kernels) for kernels in (True, False))
    assert native.allocate(SLOTS).encoder.bytes < 0.7 * graph.allocate(SLOTS).encoder.bytes


def test_a_folder_without_weights_for_the_kernels_is_made_anew(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["streaming"], tmp_path / "copy")
    for suffix in (".packed", ".json"):
        (folder / FILE).with_suffix(suffix).unlink()
    manifest = json.loads((folder / converted.MANIFEST).read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if (folder / name).exists()}
    (folder / converted.MANIFEST).write_text(json.dumps(manifest))
    assert not is_usable(folder)
    assert CpuStreamRunner(folder, 1).description.startswith("onnx int8")
    monkeypatch.setattr(converted, "has_native_kernels", lambda: False)
    assert is_usable(folder)


def test_weights_that_were_cut_off_are_not_used(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["streaming"], tmp_path / "copy")
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])
    assert not is_usable(folder)


def test_sizes_that_the_kernels_cannot_take(tmp_path: Path) -> None:
    assert is_packable(network(WIDE))
    narrow = (STREAMING, replace(WIDE, heads=8), replace(WIDE, channels=8))
    for config in narrow:
        assert not is_packable(network(config))
    convert(checkpoint_of(network(STREAMING, **SPOKEN)), tmp_path, "int8")
    assert not Int8Weights.is_in(tmp_path)
    assert is_usable(tmp_path)
