"""Where transcripts are written: to stdout, to one file, or to a folder.

No input is ever overwritten, no two inputs write to one file, and a file is either written whole or not at all.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from conure.cli.inputs import MEDIA_SUFFIXES, Input
from conure.cli.transcript_formats import SUFFIXES, Form
from conure.errors import BadOption

__all__ = ["CannotWrite", "Outputs", "form_of", "is_folder", "write_atomically", "write_stdout"]


OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def is_folder(output: str, several: bool) -> bool:
    """Whether -o means a folder: it is one, it ends like one, or several recordings go there."""
    return several or output.endswith(("/", os.sep)) or Path(output).is_dir()


def form_of(output: str) -> Form | None:
    """The form that the suffix of an output file stands for."""
    forms = {suffix: form for form, suffix in SUFFIXES.items()}
    return forms.get(Path(output).suffix.lower())


class CannotWrite(BadOption):
    """A transcript has no place to go."""

    def __init__(self, message: str, *, concerns_all: bool) -> None:
        """`concerns_all`: other transcripts would fare no better."""
        super().__init__(message)
        self.concerns_all = concerns_all


class Outputs:
    """The file of each input: talk.mp3 -> talk.srt, or talk.mp3.srt when talk.wav is there too."""

    def __init__(self, inputs: Sequence[Input], output: str, form: Form, *, several: bool) -> None:
        self._suffix = SUFFIXES[form]
        self._inputs = {_key(item.path.resolve()) for item in inputs if item.path is not None}
        self._taken: set[str] = set()
        if is_folder(output, several):
            folder = Path(output)
            self.paths = [self._free(folder / place) for place in _distinct([item.place for item in inputs])]
        else:
            self.paths = [self._explicit(Path(output))] * len(inputs)
        self._make_folders()

    def of_channel(self, index: int, channel: int) -> Path:
        """The file for one channel of an input."""
        path = self.paths[index]
        return self._free(path.with_name(f"{path.stem}.channel{channel}"), path.suffix)

    def _explicit(self, path: Path) -> Path:
        if _key(path.resolve()) in self._inputs:
            raise BadOption(f"-o {path} is the recording itself", "name another file, or a folder")
        if path.exists() and path.suffix.lower() in MEDIA_SUFFIXES:
            raise BadOption(f"-o {path} is a recording, and would be lost", "recordings come before -o")
        return path

    def _free(self, stem: Path, suffix: str | None = None) -> Path:
        """The first name that nothing has: x.srt, x.2.srt, x.3.srt ..."""
        suffix = self._suffix if suffix is None else suffix
        number = 1
        while True:
            path = stem.with_name(f"{stem.name}{f'.{number}' if number > 1 else ''}{suffix}")
            if _key(path.resolve()) not in self._taken | self._inputs:
                self._taken.add(_key(path.resolve()))
                return path
            number += 1

    def _make_folders(self) -> None:
        for folder in {path.parent for path in self.paths}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadOption(
                    f"{folder} cannot be made: {error.strerror}", "name a folder you may write to"
                ) from error


def _distinct(places: Sequence[PurePath]) -> list[PurePath]:
    """Places without their suffix where that leaves them distinct, else with it."""
    stems = Counter(_key(place.with_suffix("")) for place in places)
    return [place.with_suffix("") if stems[_key(place.with_suffix(""))] == 1 else place for place in places]


def _key(path: PurePath) -> str:
    """Two paths that may be one file on a disk that does not tell capitals apart have one key."""
    return str(path).casefold()


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write the file whole or not at all; what was there before is replaced. `mode`: who may read it."""
    target = path.resolve()
    partial = target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:100])}.{os.getpid()}.part")
    try:
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(number, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        partial.replace(target)
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be written: {error.strerror}", concerns_all=error.errno in OF_THE_DISK
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_stdout(text: str) -> None:
    """Write and flush, so that a reader at the other end of a pipe gets each transcript when it is done."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadOption(f"stdout cannot be written: {error.strerror}") from error
