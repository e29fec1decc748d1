"""Paths and writing of transcripts: stdout, one file, or a folder.

Inputs are never overwritten, each input has its own output file, and files are written atomically.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from conure.cli.inputs import MEDIA_SUFFIXES, Input
from conure.cli.transcript_formats import SUFFIXES, TranscriptFormat
from conure.errors import BadOption

__all__ = ["CannotWrite", "Outputs", "format_from_suffix", "is_folder", "write_atomically", "write_stdout"]


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def is_folder(output: str, is_multiple: bool) -> bool:
    """Whether -o is a folder: it exists as one, ends with a slash, or takes several recordings."""
    return is_multiple or output.endswith(("/", os.sep)) or Path(output).is_dir()


def format_from_suffix(output: str) -> TranscriptFormat | None:
    """The format of the suffix of an output file; None if unknown."""
    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    return formats.get(Path(output).suffix.lower())


class CannotWrite(BadOption):
    """A transcript could not be written."""

    def __init__(self, message: str, *, affects_all: bool) -> None:
        """`affects_all`: the disk is full or broken, so other transcripts would fail too."""
        super().__init__(message)
        self.affects_all = affects_all


class Outputs:
    """The output file of each input: talk.mp3 -> talk.srt, or talk.mp3.srt when talk.wav is an input too."""

    def __init__(
        self, inputs: Sequence[Input], output: str, transcript_format: TranscriptFormat, *, is_multiple: bool
    ) -> None:
        self._suffix = SUFFIXES[transcript_format]
        self._inputs = {_key(item.path.resolve()) for item in inputs if item.path is not None}
        self._used: set[str] = set()
        if is_folder(output, is_multiple):
            folder = Path(output)
            self.paths = [
                self._unused_path(folder / path) for path in _distinct([item.relative_path for item in inputs])
            ]
        else:
            self.paths = [self._explicit(Path(output))] * len(inputs)
        self._make_folders()

    def of_channel(self, index: int, channel: int) -> Path:
        """The output file of one channel of an input."""
        path = self.paths[index]
        return self._unused_path(path.with_name(f"{path.stem}.channel{channel}"), path.suffix)

    def _explicit(self, path: Path) -> Path:
        if _key(path.resolve()) in self._inputs:
            raise BadOption(f"-o {path} is the recording itself", "use another file or a folder")
        if path.exists() and path.suffix.lower() in MEDIA_SUFFIXES:
            raise BadOption(f"-o {path} would overwrite a recording", "put recordings before -o")
        return path

    def _unused_path(self, stem: Path, suffix: str | None = None) -> Path:
        """The first free name: x.srt, x.2.srt, x.3.srt ..."""
        suffix = self._suffix if suffix is None else suffix
        number = 1
        while True:
            path = stem.with_name(f"{stem.name}{f'.{number}' if number > 1 else ''}{suffix}")
            if _key(path.resolve()) not in self._used | self._inputs:
                self._used.add(_key(path.resolve()))
                return path
            number += 1

    def _make_folders(self) -> None:
        for folder in {path.parent for path in self.paths}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadOption(f"cannot create {folder}: {error.strerror}", "use a writable folder") from error


def _distinct(paths: Sequence[PurePath]) -> list[PurePath]:
    """Paths without their suffix where they stay distinct, else with it."""
    stems = Counter(_key(path.with_suffix("")) for path in paths)
    return [path.with_suffix("") if stems[_key(path.with_suffix(""))] == 1 else path for path in paths]


def _key(path: PurePath) -> str:
    """Key that is equal for paths that differ in case only, as some file systems ignore it."""
    return str(path).casefold()


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write to a temporary file and rename it to `path`. `mode`: permissions of the new file. Raises CannotWrite."""
    target = path.resolve()
    partial = target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:100])}.{os.getpid()}.part")
    try:
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(number, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        partial.replace(target)
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be written: {error.strerror}", affects_all=error.errno in DISK_ERRORS
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_stdout(text: str) -> None:
    """Write and flush, so that a pipe's reader gets each transcript when it is done. Raises BadOption."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadOption(f"cannot write to stdout: {error.strerror}") from error
