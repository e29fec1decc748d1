"""Untrusted archives: valid ones are read in place, broken and malicious ones are refused with one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conure.errors import BadCheckpoint, ModelError
from conure.models import archive_extraction as unpacked
from conure.models import nemo_file
from conure.models.nemo_file import parse_config, read_nemo
from tests.full_disk import most_bytes_a_file

CONFIG = b"target: x.Model\nencoder: {n_layers: 1}\n"
Members = list[tuple[str, bytes]]


def checkpoint(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def members(weights: bytes | None = None, config: bytes = CONFIG) -> Members:
    weights = checkpoint({"a": torch.arange(6.0).view(2, 3)}) if weights is None else weights
    return [("./model_config.yaml", config), ("./model_weights.ckpt", weights), ("./abc_tokenizer.model", b"pieces")]


def write(path: Path, contents: Members, change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in contents:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if change is not None:
                change(entry)
            tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.nemo"


def test_members_are_read_by_name(path: Path) -> None:
    raw = read_nemo(write(path, members()))
    assert raw.config["encoder"] == {"n_layers": 1}
    assert raw.tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert raw.files == {"abc_tokenizer.model": b"pieces"}


@pytest.fixture(params=["memory", "disk"])
def unpacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where archives are decompressed; for memory, the folder for temporary files does not exist."""
    if request.param == "disk":
        monkeypatch.setattr(unpacked, "EXPECTED_INFLATION", 2**60)
    else:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    return request.param


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_archive_reads_like_a_plain_one(path: Path, compress: Any, unpacking: str) -> None:
    write(path, members())
    path.write_bytes(compress(path.read_bytes()))
    assert read_nemo(path).tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_truncated_compressed_archive_is_refused(path: Path, compress: Any, unpacking: str) -> None:
    data = compress(write(path, members(checkpoint({"a": torch.rand(64, 64)}))).read_bytes())
    for kept in (8, len(data) // 3, len(data) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(BadCheckpoint):
            read_nemo(path)


def test_other_compression_is_named(path: Path) -> None:
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(BadCheckpoint, match="compressed with zstd"):
        read_nemo(path)


def test_a_full_disk_is_named_and_not_the_archive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "EXPECTED_INFLATION", 2**60)
    write(path, members(checkpoint({"a": torch.rand(512, 512)})))
    path.write_bytes(gzip.compress(path.read_bytes()))
    is_raised = pytest.raises(ModelError, match=r"no space is left in .* needed, .* free")
    with most_bytes_a_file(2**18), is_raised as caught:
        read_nemo(path)
    assert not isinstance(caught.value, BadCheckpoint)
    assert "TMPDIR" in (caught.value.hint or "")
    assert "again" not in f"{caught.value} {caught.value.hint}"


def test_a_missing_folder_for_temporary_files_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "EXPECTED_INFLATION", 2**60)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    path.write_bytes(gzip.compress(write(path, members()).read_bytes()))
    with pytest.raises(ModelError, match="cannot be unpacked"):
        read_nemo(path)


def test_views_of_one_storage_are_kept(path: Path) -> None:
    whole = torch.arange(6.0)
    raw = read_nemo(write(path, members(checkpoint({"whole": whole, "part": whole[2:]}))))
    assert raw.tensors["part"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("name", ["../evil.model", "/etc/evil.model", "a/../../evil.txt", "..\\evil.txt"])
def test_a_member_outside_the_archive_is_refused(path: Path, name: str) -> None:
    with pytest.raises(BadCheckpoint, match="outside its place"):
        read_nemo(write(path, [*members(), (name, b"x")]))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(path: Path, kind: bytes) -> None:
    def change(entry: tarfile.TarInfo) -> None:
        if entry.name.endswith(".model"):
            entry.type, entry.linkname = kind, "/etc/passwd"

    with pytest.raises(BadCheckpoint, match="not a regular file"):
        read_nemo(write(path, members(), change))


@pytest.mark.parametrize("name", ["model_config.yaml", "model_weights.ckpt", "abc_tokenizer.model"])
def test_two_members_with_one_name_are_refused(path: Path, name: str) -> None:
    with pytest.raises(BadCheckpoint, match="two members"):
        read_nemo(write(path, [*members(), (name, b"x")]))


@pytest.mark.parametrize("missing", ["./model_config.yaml", "./model_weights.ckpt"])
def test_a_missing_member_is_named(path: Path, missing: str) -> None:
    with pytest.raises(BadCheckpoint, match=f"has no {missing[2:]}"):
        read_nemo(write(path, [member for member in members() if member[0] != missing]))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_archive_is_refused(path: Path, kept: float, zipped: bool) -> None:
    whole = write(path, members(checkpoint({"a": torch.rand(64, 64)}))).read_bytes()
    whole = gzip.compress(whole) if zipped else whole
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BadCheckpoint):
        read_nemo(path)


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b", b"\0" * 4096, b"x" * 4096])
def test_other_files_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint):
        read_nemo(path)


@pytest.mark.parametrize("claimed", [10**7, 10**13, 2**70])
def test_an_absurd_member_size_is_refused(path: Path, claimed: int) -> None:
    write(path, members())
    raw = bytearray(path.read_bytes())
    at = raw.index(b"./abc_tokenizer.model")
    entry = tarfile.TarInfo("./abc_tokenizer.model")
    entry.size = claimed
    raw[at : at + 512] = entry.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(raw)
    with pytest.raises(BadCheckpoint):
        read_nemo(path)


def test_a_header_that_claims_gigabytes_is_not_read(path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(BadCheckpoint, match="claims"):
        read_nemo(path)


def test_a_gzip_bomb_is_stopped(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * (8 * 2**20)))
    with pytest.raises(BadCheckpoint, match="gzip bomb"):
        read_nemo(path)


def test_too_many_members_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo_file, "MAX_MEMBERS", 3)
    with pytest.raises(BadCheckpoint, match="more than 3 members"):
        read_nemo(write(path, [*members(), ("a.txt", b"")]))


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_with_code_is_refused_and_does_not_run(path: Path) -> None:
    mark = path.parent / "ran"
    with pytest.raises(BadCheckpoint, match=r"run code \(posix\.mkdir\)|run code \(nt\.mkdir\)") as caught:
        read_nemo(write(path, members(checkpoint({"a": Evil(mark)}))))
    assert not mark.exists()
    assert "\n" not in str(caught.value)


def test_a_bare_pickle_is_refused_and_does_not_run(path: Path) -> None:
    mark = path.parent / "ran"
    with pytest.raises(BadCheckpoint, match="older formats"):
        read_nemo(write(path, members(pickle.dumps(Evil(mark)))))
    assert not mark.exists()


def test_the_legacy_format_of_torch_is_refused(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    with pytest.raises(BadCheckpoint, match="older formats"):
        read_nemo(write(path, members(buffer.getvalue())))


@pytest.mark.parametrize("state", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(1)])
def test_other_objects_than_dictionaries_of_tensors_are_refused(path: Path, state: Any) -> None:
    with pytest.raises(BadCheckpoint, match="not a dictionary of tensors"):
        read_nemo(write(path, members(checkpoint(state))))


def test_a_shape_larger_than_the_stored_data_is_refused(path: Path) -> None:
    huge = torch.zeros(1).expand(10**7, 10**6)
    with pytest.raises(BadCheckpoint, match="more than was stored"):
        read_nemo(write(path, members(checkpoint({"a": huge}))))


def test_a_sparse_tensor_is_refused(path: Path) -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,), check_invariants=True)
    with pytest.raises(BadCheckpoint):
        read_nemo(write(path, members(checkpoint({"a": sparse}))))


def test_a_compressed_checkpoint_is_refused(path: Path) -> None:
    source, packed = zipfile.ZipFile(io.BytesIO(checkpoint({"a": torch.zeros(10**6)}))), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    with pytest.raises(BadCheckpoint, match="zip bomb"):
        read_nemo(write(path, members(packed.getvalue())))


def test_a_huge_config_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo_file, "MAX_CONFIG_BYTES", 10)
    with pytest.raises(BadCheckpoint, match="the limit is"):
        read_nemo(write(path, members()))


def test_norwegian_is_a_language_and_not_false() -> None:
    config = parse_config(b"model_defaults:\n  prompt_dictionary:\n    en: 0\n    no: 20\n    'nb-NO': 20\n")
    assert config["model_defaults"]["prompt_dictionary"] == {"en": 0, "no": 20, "nb-NO": 20}


def doubling(levels: int) -> bytes:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(doubling(60), id="aliases"),
        pytest.param(b"[" * 100_000, id="depth"),
        pytest.param(b"a: " + b"{a: " * 50 + b"1" + b"}" * 50, id="nested"),
        pytest.param(b"a: &a {x: 1}\nb: {<<: *a}", id="merge"),
        pytest.param(b"a: !!python/object/apply:os.mkdir [ran]", id="object"),
        pytest.param(b"a: [1, 2", id="unclosed"),
        pytest.param(b"- 1\n- 2", id="list"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"", id="empty"),
    ],
)
def test_yaml_bombs_and_objects_are_refused(text: bytes) -> None:
    with pytest.raises(BadCheckpoint, match=r"model_config\.yaml") as caught:
        parse_config(text)
    assert "\n" not in str(caught.value)


def test_doubling_aliases_cost_no_time() -> None:
    assert parse_config(doubling(40))["a0"] == {"x": 1}
