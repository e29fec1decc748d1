"""Reads untrusted .nemo archives.

A .nemo file is a tar, plain or compressed, with model_config.yaml, model_weights.ckpt (a zip with a pickle and raw
tensors) and a tokenizer. Members are read by name at their offset in the file: nothing is extracted, no path from
the archive is followed, and every declared size is validated against the size of the file. The zip and its pickle are
checked before the pickle is read by torch's weights_only reader.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
import yaml
from torch import Tensor

from conure.errors import BadCheckpoint, ModelError
from conure.models.archive_extraction import open_uncompressed
from conure.models.config_values import short_repr
from conure.models.pickle_check import check_pickle

__all__ = ["NemoFile", "read_nemo"]

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MAX_MEMBERS = 1_000
MAX_NAME_BYTES = 2**20
MAX_CONFIG_BYTES = 8 * 2**20
MAX_TEXT_BYTES = 64 * 2**20
PICKLE_BYTES, PICKLE_BYTES_PER_TENSOR = 2**20, 2**11
"""Limit of a pickle's size: constant part and part per tensor; torch writes some 200 bytes per tensor."""
MAX_DIRECTORY_BYTES = 8 * 2**20
"""Size of the directory of a zip; an entry takes some 80 bytes."""
MAX_YAML_DEPTH = 40
MAX_YAML_ALIASES = 100
MAX_YAML_EVENTS = 400_000
"""The largest published config has 70,000: it repeats its vocabulary."""

PARSER_ERRORS = (ValueError, OverflowError, KeyError, IndexError, TypeError, AttributeError, struct.error)
"""Exceptions of the standard library's and YAML's parsers for malformed content."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class NemoFile:
    """The content of an archive, not yet interpreted."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes]
    """Small members by the name that the config uses for them."""


def read_nemo(path: Path) -> NemoFile:
    """Reads a whole archive. Raises BadCheckpoint if it is broken or malicious."""
    try:
        with path.open("rb") as file, open_uncompressed(file) as archive:
            return _read_archive(archive)
    except ModelError:
        raise
    except OSError as error:
        hint = None if error.errno else "download it again"  # without a number it is gzip that found the file broken
        raise BadCheckpoint(f"the archive cannot be read: {error.strerror or short_repr(str(error))}", hint) from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RecursionError, *PARSER_ERRORS) as error:
        raise BadCheckpoint(f"the archive cannot be read: {short_repr(str(error))}", "download it again") from error


def _read_archive(archive: IO[bytes]) -> NemoFile:
    members = _list_members(archive)
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise BadCheckpoint(f"the archive has no {name}; it is truncated or not a .nemo file")
    config = parse_config(_read_member(archive, members, CONFIG, MAX_CONFIG_BYTES))
    small = [name for name in members if name.endswith((".model", ".txt", ".json", ".vocab"))]
    files = {name: _read_member(archive, members, name, MAX_TEXT_BYTES) for name in small}
    return NemoFile(config, _read_tensors(_Window(archive, *members[WEIGHTS])), files)


class _HeaderReader:
    """A file for tarfile or zipfile, which read only headers here; reads of more than `max_bytes` are refused."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._max_bytes = file, max_bytes
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count < 0:  # zipfile reads the rest of the file to find the directory
            position = self._file.tell()
            count = self._file.seek(0, io.SEEK_END) - position
            self._file.seek(position)
        if count > self._max_bytes:
            raise BadCheckpoint(f"a header of the archive claims {count:,} bytes")
        return self._file.read(count)


class _Window(io.RawIOBase):
    """A member of the archive as a file: `size` bytes from `start` on."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer)[: max(self._size - self._position, 0)]
        self._file.seek(self._start + self._position)
        count: int = self._file.readinto(target)  # type: ignore[attr-defined]
        self._position += count
        return count


def _list_members(archive: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Name of each file -> its offset and size."""
    size = archive.seek(0, io.SEEK_END)
    archive.seek(0)
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=_HeaderReader(archive, MAX_NAME_BYTES), mode="r:") as tar:  # type: ignore[call-overload]
        for index, entry in enumerate(tar):
            if index >= MAX_MEMBERS:
                raise BadCheckpoint(f"the archive has more than {MAX_MEMBERS} members")
            if entry.isdir():
                continue
            name = _member_name(entry)
            if name in members:
                raise BadCheckpoint(f"the archive has two members {name!r}")
            if entry.size < 0 or entry.offset_data + entry.size > size:
                raise BadCheckpoint(f"{name} claims {entry.size:,} bytes in an archive of {size:,}: it is truncated")
            members[name] = (entry.offset_data, entry.size)
    return members


def _member_name(entry: tarfile.TarInfo) -> str:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.name or "\0" in entry.name:
        raise BadCheckpoint(f"the archive has a member outside its place: {entry.name[:80]!r}")
    if not entry.isreg() or entry.issparse():
        raise BadCheckpoint(f"the archive has a member that is not a regular file: {entry.name[:80]!r}")
    return str(path)


def _read_member(archive: IO[bytes], members: Mapping[str, tuple[int, int]], name: str, limit: int) -> bytes:
    start, size = members[name]
    if size > limit:
        raise BadCheckpoint(f"{name} has {size:,} bytes; the limit is {limit:,}")
    archive.seek(start)
    return archive.read(size)


def parse_config(data: bytes) -> dict[str, Any]:
    """Safe YAML: no tags that create objects, no alias bombs, and the key `no` stays a language (Norwegian)."""
    try:
        text = data.decode()
        _check_yaml(text)
        config = _string_keys(yaml.load(text, Loader=_Loader), {})
    except BadCheckpoint:
        raise
    except (yaml.YAMLError, RecursionError, *PARSER_ERRORS) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise BadCheckpoint(f"{CONFIG} cannot be read: {short_repr(reason[0])}") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{CONFIG} is not a mapping")
    return config


def _check_yaml(text: str) -> None:
    """Counts the parser's events before any object is built from them."""
    depth = aliases = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if count > MAX_YAML_EVENTS:
            raise BadCheckpoint(f"{CONFIG} has more than {MAX_YAML_EVENTS:,} values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        elif isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise BadCheckpoint(f"{CONFIG} merges mappings, which no .nemo file needs")
        if depth > MAX_YAML_DEPTH or aliases > MAX_YAML_ALIASES:
            raise BadCheckpoint(f"{CONFIG} is nested or repeated too often: a YAML bomb")


def _string_keys(value: Any, done: dict[int, Any]) -> Any:
    """Converts keys to strings. YAML 1.1 reads a bare `no` as false; here it is a language (Norwegian)."""
    if not isinstance(value, dict):
        return value
    if id(value) not in done:  # an aliased mapping is converted once
        converted = done[id(value)] = {}
        converted.update(
            ("no" if key is False else str(key), _string_keys(inner, done)) for key, inner in value.items()
        )
    return done[id(value)]


def _read_tensors(window: _Window) -> dict[str, Tensor]:
    file = io.BufferedReader(window, 2**16)
    size = window.seek(0, io.SEEK_END)
    _check_zip(file, size)
    file.seek(0)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nothing narrower
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadCheckpoint(f"{WEIGHTS} cannot be read: {short_repr(reason[0])}") from error
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise BadCheckpoint(f"{WEIGHTS} is not a dictionary of tensors")
    _check_storages(state, size)
    return {name: tensor.detach() for name, tensor in state.items()}


def _check_zip(file: IO[bytes], size: int) -> None:
    """torch writes uncompressed archives: entries that claim to be larger than the file do not come from torch."""
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise BadCheckpoint(f"{WEIGHTS} is not a zip of torch: older formats are bare pickles and are not supported")
    try:
        archive = zipfile.ZipFile(_HeaderReader(file, MAX_DIRECTORY_BYTES))
        entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise BadCheckpoint(f"{WEIGHTS} is truncated: {short_repr(str(error))}") from error
    if len({entry.filename for entry in entries}) != len(entries):
        raise BadCheckpoint(f"{WEIGHTS} has two entries of one name")
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise BadCheckpoint(f"{WEIGHTS} claims to unpack to more than it is: a zip bomb")
    _check_pickles(archive, entries)


def _check_pickles(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    parts = [PurePosixPath(entry.filename).parts for entry in entries]
    sizes = {path[-1]: entry.file_size for path, entry in zip(parts, entries, strict=True) if path[-2:-1] == ("data",)}
    for entry in entries:
        if not entry.filename.endswith(".pkl"):
            continue
        if entry.file_size > PICKLE_BYTES + PICKLE_BYTES_PER_TENSOR * len(sizes):
            raise BadCheckpoint(f"{WEIGHTS} has a pickle of {entry.file_size:,} bytes for {len(sizes):,} tensors")
        try:
            data = archive.read(entry)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError, struct.error) as error:
            raise BadCheckpoint(f"{WEIGHTS} is truncated: {short_repr(str(error))}") from error
        check_pickle(data, sizes, WEIGHTS)


def _check_storages(state: Mapping[str, Tensor], size: int) -> None:
    """Raises BadCheckpoint if tensors claim more numbers than are stored: a pickle may declare any shape."""
    storages = {}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise BadCheckpoint(f"{name} in {WEIGHTS} is not a dense CPU tensor")
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > min(storage.nbytes(), size):
            raise BadCheckpoint(f"{name} in {WEIGHTS} claims the shape {list(tensor.shape)}, more than was stored")
    if sum(storages.values()) > size:
        raise BadCheckpoint(f"{WEIGHTS} claims more numbers than were stored")
