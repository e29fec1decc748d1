"""Pickles that take torch long to read, run code or read out of bounds are refused before torch reads them."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conure.errors import BadCheckpoint
from conure.models.pickle_check import check_pickle


def saved(state: Any) -> tuple[bytes, dict[str, int]]:
    """The pickle that torch writes, and the sizes of the archive's other entries."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = zipfile.ZipFile(buffer)
    sizes = {e.filename.rpartition("/")[2]: e.file_size for e in archive.infolist() if "/data/" in e.filename}
    return next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")), sizes


def states() -> Iterator[Any]:
    whole = torch.arange(6.0)
    yield {"a": whole}
    yield {"whole": whole, "part": whole[2:], "again": whole}
    yield {f"layers.{index}.weight": torch.zeros(2, 3) for index in range(1_700)}
    yield OrderedDict(a=torch.zeros(3, dtype=torch.bfloat16), b=torch.tensor(5), c=torch.zeros(2).half())
    yield torch.nn.Sequential(torch.nn.LSTM(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    yield {"parameter": torch.nn.Parameter(torch.zeros(2))}


@pytest.mark.parametrize("state", list(states()))
def test_pickles_of_torch_are_accepted(state: Any) -> None:
    check_pickle(*saved(state), "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\x80\x02" + b"(" * 5_000_000 + b".", "nested more than", id="marks"),
        pytest.param(b"\x80\x02" + b"(t0" * 5_000_000 + b".", "more than .* operations", id="tuples"),
        pytest.param(b"\x80\x02" + b"N0" * 5_000_000 + b".", "more than .* operations", id="nothing"),
        pytest.param(b"\x80\x02cos\nsystem\n.", r"run code \(os\.system\)", id="system"),
        pytest.param(b"\x80\x02cbuiltins\nbytearray\n.", r"run code \(builtins\.bytearray\)", id="memory"),
        pytest.param(b"\x80\x02ctorch\nTensor\n.", r"run code \(torch\.Tensor\)", id="tensor"),
        pytest.param(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "run code", id="stack global"),
        pytest.param(b"(ios\nsystem\n.", "run code", id="instance"),
        pytest.param(b"\x80\x02\x82\x01.", "run code", id="extension"),
        pytest.param(b"\x80\x02N", "truncated", id="no end"),
        pytest.param(b"", "truncated", id="empty"),
        pytest.param(b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.", "truncated", id="long text"),
        pytest.param(b"\x80\x02NQ.", "did not write", id="a reference to nothing"),
    ],
)
def test_hostile_pickles_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadCheckpoint, match=message) as caught:
        check_pickle(data, {"0": 4}, "model_weights.ckpt")
    assert len(str(caught.value)) < 250


def reference(*values: Any) -> bytes:
    """A pickle of one reference to an entry."""

    class Marked:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, one: Any) -> Any:
            return values if isinstance(one, Marked) else None

    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(Marked())
    return buffer.getvalue()


def test_a_reference_within_its_entry_is_accepted() -> None:
    check_pickle(reference("storage", torch.FloatStorage, "0", "cpu", 2), {"0": 8}, "x")


@pytest.mark.parametrize(
    "values",
    [
        ("storage", torch.FloatStorage, "0", "cpu", 3),
        ("storage", torch.DoubleStorage, "0", "cpu", 2),
        ("storage", torch.FloatStorage, "0", "cpu", 2**62),
        ("storage", torch.FloatStorage, "0", "cpu", -1),
        ("storage", torch.FloatStorage, "1", "cpu", 1),
        ("storage", torch.FloatStorage, "0", "cpu", (1, 2)),
        ("storage", "cpu", "0", "cpu", 1),
        ("module", torch.FloatStorage, "0", "cpu", 1),
        ("storage", torch.FloatStorage, "0"),
    ],
)
def test_a_reference_beyond_its_entry_is_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(BadCheckpoint, match=r"more than were stored|did not write"):
        check_pickle(reference(*values), {"0": 8}, "x")


GOOD, SIZES = saved({"a": torch.zeros(3), "b": torch.zeros(2)[1:]})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
@example([(15, 92)])  # an invalid escape
def test_changed_bytes_are_accepted_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    with contextlib.suppress(BadCheckpoint):
        check_pickle(bytes(data), SIZES, "x")
