"""Command-line arguments as a list of recordings: files, folders, patterns, "-" for stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from conure.errors import AudioNotFound, ConureError
from conure.printable import printable_name

__all__ = ["MEDIA_SUFFIXES", "STDIN", "Input", "Inputs", "find_inputs"]

STDIN = "-"
MEDIA_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aifc aiff amr ape au caf flac gsm m4a m4b mka mp2 mp3 mpga oga ogg opus sph spx tta",
        "voc w64 wav wma wv",
        "3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv",
    )
    for name in names.split()
)
"""Suffixes that are searched in folders. A file given by name may have any suffix."""


@dataclass(frozen=True)
class Input:
    """One recording."""

    name: str
    """As given or found; bytes that are not UTF-8 are escaped."""
    path: Path | None
    """None for stdin."""
    relative_path: PurePath
    """Path of its output below an output folder, still with the suffix of the recording."""


@dataclass
class Inputs:
    """Recordings that were found, and arguments that have none."""

    found: list[Input] = field(default_factory=list)
    missing: list[tuple[str, ConureError]] = field(default_factory=list)
    is_multiple: bool = False
    """Whether the arguments can mean several recordings, even if only one was found."""


def find_inputs(arguments: Sequence[str]) -> Inputs:
    """The recordings of all arguments, each once."""
    inputs = Inputs(is_multiple=len(arguments) > 1)
    seen: set[Path | None] = set()
    for argument in arguments:
        try:
            for item in _expand(argument, inputs):
                key = item.path and item.path.resolve()
                if key not in seen:
                    seen.add(key)
                    inputs.found.append(item)
        except ConureError as error:
            inputs.missing.append((printable_name(argument), error))
    return inputs


def _expand(argument: str, inputs: Inputs) -> Iterator[Input]:
    path = Path(argument)
    if argument == STDIN:
        if sys.stdin.isatty():
            raise AudioNotFound("stdin is a terminal, not a recording", "conure transcribe - < talk.mp3")
        yield Input("<stdin>", None, PurePath("stdin"))
    elif argument and path.is_dir():
        prefix = PurePath(path.resolve().name) if inputs.is_multiple else PurePath()
        inputs.is_multiple = True
        yield from _find_media(path, prefix, inputs)
    elif argument and path.exists():
        yield Input(printable_name(argument), path, PurePath(path.name))
    elif glob.has_magic(argument):
        inputs.is_multiple = True
        yield from _match(argument)
    else:
        raise AudioNotFound(
            f"{printable_name(argument) or repr(argument)}: no such file", "check the name; quote it if it has spaces"
        )


def _find_media(folder: Path, prefix: PurePath, inputs: Inputs) -> Iterator[Input]:
    """Media files below a folder, sorted by name. Skips hidden ones and what is not a file."""
    found = False
    errors: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in MEDIA_SUFFIXES and not name.startswith(".") and _is_file_or_broken_link(path):
                found = True
                yield Input(printable_name(str(path)), path, prefix / path.relative_to(folder))
    for error in errors:
        name = printable_name(str(error.filename))
        inputs.missing.append((name, AudioNotFound(f"{name}: cannot be read: {error.strerror}")))
    if not found and not errors:
        raise AudioNotFound(
            f"{printable_name(str(folder))}: no recordings in this folder",
            "give a file with another suffix by its name",
        )


def _is_file_or_broken_link(path: Path) -> bool:
    """False for pipes and devices, which would block. True for a broken link, so that it is reported as an error."""
    return path.is_file() or not path.exists()


def _match(pattern: str) -> Iterator[Input]:
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in paths if _is_file_or_broken_link(path)]
    if not files:
        raise AudioNotFound(f"{printable_name(pattern)}: no file matches", "** matches folders at any depth")
    for path in files:
        yield Input(printable_name(str(path)), path, PurePath(path.name))
