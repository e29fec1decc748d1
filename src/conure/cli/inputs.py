"""What was asked to be transcribed, as a list of recordings: files, folders, patterns, "-" for stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from conure.errors import AudioNotFound, ConureError

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
    """As the person wrote it, or as it was found."""
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
            inputs.missing.append((argument, error))
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
        yield from _search(path, within)
    elif argument and path.exists():
        yield Input(argument, path, PurePath(path.name))
    elif glob.has_magic(argument):
        inputs.several = True
        yield from _match(argument)
    else:
        raise AudioNotFound(f"{argument or repr(argument)}: no such file", "check the name; quote it if it has blanks")


def _search(folder: Path, within: PurePath) -> Iterator[Input]:
    """Media files below a folder in the order of their names; hidden ones are passed over."""
    found = False
    for root, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in MEDIA_SUFFIXES and not name.startswith("."):
                found = True
                yield Input(str(path), path, within / path.relative_to(folder))
    if not found:
        raise AudioNotFound(f"{folder}: no recordings in this folder", "a file of another suffix can be named itself")


def _unreadable(error: OSError) -> None:
    raise AudioNotFound(f"{error.filename}: cannot be read: {error.strerror}") from error


def _match(pattern: str) -> Iterator[Input]:
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in paths if not path.is_dir()]
    if not files:
        raise AudioNotFound(f"{pattern}: no file matches", "** matches folders at any depth")
    for path in files:
        yield Input(str(path), path, PurePath(path.name))
