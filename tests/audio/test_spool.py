"""Bytes are returned in order from memory and files, and space is released."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.audio import spool as spools
from conure.audio.spool import MAX_MEMORY_BYTES, Spool, SpoolSpace
from conure.errors import BacklogFull

FILES = Path("/proc/self/fd")
SIZES = st.sampled_from([1, 2, 3, 100, 6_400, MAX_MEMORY_BYTES // 3, MAX_MEMORY_BYTES, 2 * MAX_MEMORY_BYTES + 7])


def files() -> int:
    """Open temporary files, which have no name."""
    return sum("deleted" in os.readlink(path) for path in FILES.iterdir() if path.is_symlink())


@pytest.fixture(autouse=True)
def _leaves_no_file() -> Iterator[None]:
    before = files()
    yield
    assert files() == before


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), SIZES), max_size=30), st.randoms())
def test_first_in_first_out(steps: list[tuple[bool, int]], random: object) -> None:
    space, wanted, got = SpoolSpace(2**40), bytearray(), bytearray()
    spool = Spool(space)
    for number, (is_put, size) in enumerate(steps):
        if is_put:
            data = bytes([number]) * size
            spool.append(data)
            wanted += data
        else:
            taken = spool.read(size)
            assert len(taken) <= size
            assert taken or not len(spool)
            got += taken
        assert len(got) + len(spool) == len(wanted)
    while taken := spool.read(MAX_MEMORY_BYTES):
        got += taken
    assert got == wanted
    assert space.used_bytes == 0
    assert files() == 0 or not len(spool)
    spool.close()


def test_few_bytes_need_no_file() -> None:
    spool = Spool(SpoolSpace(0))
    before = files()
    for _ in range(3):
        for _ in range(MAX_MEMORY_BYTES // 1_000):
            spool.append(bytes(1_000))
        assert files() == before
        while spool.read(777):
            pass


def test_space_is_shared_and_released() -> None:
    space = SpoolSpace(5 * MAX_MEMORY_BYTES)
    one, other = Spool(space), Spool(space)
    one.append(bytes(3 * MAX_MEMORY_BYTES))
    with pytest.raises(BacklogFull, match=r"reached 5\.24288 MB"):
        other.append(bytes(3 * MAX_MEMORY_BYTES))
    assert len(other) == 0
    one.close()
    one.close()
    assert space.used_bytes == 0
    other.append(bytes(3 * MAX_MEMORY_BYTES))
    assert space.used_bytes == 3 * MAX_MEMORY_BYTES
    other.close()


def test_the_space_of_a_steady_backlog_does_not_grow() -> None:
    """A stream with a constant backlog for hours needs only the space of the backlog."""
    spool, largest = Spool(SpoolSpace(2**40)), 0
    spool.append(bytes(2 * MAX_MEMORY_BYTES))
    for _ in range(60):
        spool.append(bytes(2 * MAX_MEMORY_BYTES))
        for _ in range(8):
            spool.read(spools.READ_SIZE)
        held = [file for file in (spool._reading, spool._writing) if file]
        largest = max(largest, sum(os.fstat(file._file.fileno()).st_size for file in held))
    assert largest <= 10 * MAX_MEMORY_BYTES
    spool.close()


def test_a_full_disk_is_an_error_and_earlier_bytes_are_kept(tmp_path: Path) -> None:
    space, spool = SpoolSpace(2**40), Spool(SpoolSpace(2**40))
    spool.append(b"a" * (2 * MAX_MEMORY_BYTES))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MAX_MEMORY_BYTES, limit[1]))  # the kernel refuses writes beyond it
    try:
        with pytest.raises(BacklogFull, match="File too large"):
            spool.append(b"b" * (2 * MAX_MEMORY_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    spool.append(b"c")
    got = b""
    while taken := spool.read(MAX_MEMORY_BYTES):
        got += taken
    assert got == b"a" * (2 * MAX_MEMORY_BYTES) + b"c"
    assert space.used_bytes == 0
    spool.close()


def test_a_missing_folder_is_like_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    space = SpoolSpace(2**40)
    with pytest.raises(BacklogFull, match="no space") as raised:
        Spool(space).append(bytes(2 * MAX_MEMORY_BYTES))
    assert "TMPDIR" in (raised.value.hint or "")
    assert space.used_bytes == 0
