"""What was asked to be transcribed, as a list of recordings: files, folders, patterns, "-" for stdin."""

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
"""What is looked for in folders. A file that is named outright may have any suffix."""


@dataclass(frozen=True)
class Input:
    """One recording."""

    name: str
    """As the person wrote it, or as it was found; bytes that are no UTF-8 are written out."""
    path: Path | None
    """None for stdin."""
    place: PurePath
    """Where its output belongs below an output folder, with the suffix of the recording."""


@dataclass
class Inputs:
    """What was found, and what was asked for and is not there."""

    found: list[Input] = field(default_factory=list)
    missing: list[tuple[str, ConureError]] = field(default_factory=list)
    several: bool = False
    """Whether the call means several recordings, even if only one was found."""


def find_inputs(asked: Sequence[str]) -> Inputs:
    """Look up every argument; recordings that are named twice are taken once."""
    inputs = Inputs(several=len(asked) > 1)
    seen: set[Path | None] = set()
    for argument in asked:
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
        within = PurePath(path.resolve().name) if inputs.several else PurePath()
        inputs.several = True
        yield from _search(path, within, inputs)
    elif argument and path.exists():
        yield Input(printable_name(argument), path, PurePath(path.name))
    elif glob.has_magic(argument):
        inputs.several = True
        yield from _match(argument)
    else:
        raise AudioNotFound(
            f"{printable_name(argument) or repr(argument)}: no such file", "check the name; quote it if it has blanks"
        )


def _search(folder: Path, within: PurePath, inputs: Inputs) -> Iterator[Input]:
    """Media files below a folder in the order of their names; hidden ones are passed over, and what is no file."""
    found = False
    unread: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in MEDIA_SUFFIXES and not name.startswith(".") and _may_be_file(path):
                found = True
                yield Input(printable_name(str(path)), path, within / path.relative_to(folder))
    for error in unread:
        name = printable_name(str(error.filename))
        inputs.missing.append((name, AudioNotFound(f"{name}: cannot be read: {error.strerror}")))
    if not found and not unread:
        raise AudioNotFound(
            f"{printable_name(str(folder))}: no recordings in this folder",
            "a file of another suffix can be named itself",
        )


def _may_be_file(path: Path) -> bool:
    """A pipe would be waited for. A link to nowhere is an error that is told."""
    return path.is_file() or not path.exists()


def _match(pattern: str) -> Iterator[Input]:
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in paths if _may_be_file(path)]
    if not files:
        raise AudioNotFound(f"{printable_name(pattern)}: no file matches", "** matches folders at any depth")
    for path in files:
        yield Input(printable_name(str(path)), path, PurePath(path.name))
