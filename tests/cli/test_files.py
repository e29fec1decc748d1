"""Which recordings a call means, and where their transcripts go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conure.cli.inputs import find_inputs
from conure.cli.outputs import write_atomically
from conure.errors import BadOption
from tests.cli.conftest import Call

Touch = Callable[..., None]


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names(*argument: str) -> list[str]:
    return [item.name for item in find_inputs(argument).found]


def test_folders_are_searched_for_media(touch: Touch) -> None:
    touch("in/b.mp3", "in/a.WAV", "in/notes.txt", "in/deep/er/c.mp4", "in/.hidden.mp3", "in/.git/d.mp3", "in/._b.mp3")
    assert names("in") == ["in/a.WAV", "in/b.mp3", "in/deep/er/c.mp4"]


def test_patterns(touch: Touch) -> None:
    touch("a.mp3", "b.mp3", "x/c.mp3", "odd[1].mp3")
    assert names("?.mp3") == ["a.mp3", "b.mp3"]
    assert names("**/*.mp3") == ["a.mp3", "b.mp3", "odd[1].mp3", "x/c.mp3"]
    assert names("odd[1].mp3") == ["odd[1].mp3"]


def test_duplicate_inputs(touch: Touch) -> None:
    touch("in/a.mp3")
    os.symlink("a.mp3", "in/link.mp3")
    assert names("in/a.mp3", "./in/a.mp3", "in", "in/*.mp3") == ["in/a.mp3"]


@pytest.mark.parametrize(
    ("argument", "error"),
    [("gone.mp3", "no such file"), ("", "no such file"), ("empty", "no recordings in"), ("*.flac", "no file matches")],
)
def test_missing_inputs(folder: Path, argument: str, error: str) -> None:
    (folder / "empty").mkdir()
    inputs = find_inputs([argument])
    assert inputs.found == []
    assert error in inputs.missing[0][1].message


def test_a_single_recording_to_a_file(call: Call, touch: Touch, folder: Path) -> None:
    touch("talk.mp3")
    assert call("transcribe", "talk.mp3", "-o", "new/talk.srt").out == ""
    assert (folder / "new/talk.srt").read_text().startswith("1\n00:00:00,000")
    call("transcribe", "talk.mp3", "-o", "plain")
    assert (folder / "plain").read_text() == "Hello there.\n"
    call("transcribe", "talk.mp3", "-f", "json", "-o", "talk.txt")
    assert (folder / "talk.txt").read_text().startswith("{")
    assert call("transcribe", "talk.mp3", "-o", "-").out == "Hello there.\n"


def test_to_a_folder(call: Call, touch: Touch, folder: Path) -> None:
    touch("talk.mp3", "in/a.mp3", "in/deep/a.mp3")
    call("transcribe", "talk.mp3", "-f", "words", "-o", "one/")
    call("transcribe", "in", "-f", "vtt", "-o", "two")
    call("transcribe", "in", "talk.mp3", "-o", "three")
    assert written(folder / "one") == ["talk.tsv"]
    assert written(folder / "two") == ["a.vtt", "deep/a.vtt"]
    assert written(folder / "three") == ["in/a.txt", "in/deep/a.txt", "talk.txt"]


def test_equal_names_get_distinct_outputs(call: Call, touch: Touch, folder: Path) -> None:
    touch("talk.mp3", "talk.wav", "x/talk.mp3", "Other.mp3", "other.mp4", "alone.mp3")
    call("transcribe", "talk.mp3", "talk.wav", "x/talk.mp3", "Other.mp3", "other.mp4", "alone.mp3", "-o", "out")
    assert written(folder / "out") == [
        "Other.mp3.txt",
        "alone.txt",
        "other.mp4.txt",
        "talk.mp3.2.txt",
        "talk.mp3.txt",
        "talk.wav.txt",
    ]


def test_a_recording_is_never_overwritten(call: Call, touch: Touch, folder: Path) -> None:
    touch("talk.txt", "b.mp3", "c.mp3")
    assert call("transcribe", "talk.txt", "-o", "talk.txt").code == 2
    os.symlink("talk.txt", "link.txt")
    assert call("transcribe", "talk.txt", "-o", "link.txt").code == 2
    assert call("transcribe", "talk.txt", "-o", ".").code == 0
    assert call("transcribe", "c.mp3", "-o", "b.mp3").code == 2
    assert (folder / "talk.txt").read_bytes() == (folder / "b.mp3").read_bytes() == b"sound"
    assert (folder / "talk.2.txt").read_text() == "Hello there.\n"


def test_an_earlier_transcript_is_replaced(call: Call, touch: Touch, folder: Path) -> None:
    touch("a.mp3", "out/a.txt")
    call("transcribe", "a.mp3", "-o", "out")
    assert (folder / "out/a.txt").read_text() == "Hello there.\n"


def test_an_output_folder_that_cannot_be_created(call: Call, touch: Touch) -> None:
    touch("a.mp3", "file")
    done = call("transcribe", "a.mp3", "-o", "file/out/")
    assert done.code == 2
    assert "cannot create" in done.err


def test_files_are_written_atomically(folder: Path) -> None:
    target = folder / "a.txt"
    target.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "half \ud800")
    assert written(folder) == ["a.txt"]
    assert target.read_text() == "before"
    with pytest.raises(BadOption, match="cannot be written"):
        write_atomically(folder / "no folder" / "a.txt", "text")


def test_pipes_in_a_folder_are_skipped(touch: Touch) -> None:
    touch("in/a.mp3")
    os.mkfifo("in/pipe.wav")
    os.symlink("gone", "in/link.wav")
    assert names("in") == names("in/*") == ["in/a.mp3", "in/link.wav"]


def test_names_that_are_not_utf8(call: Call, folder: Path) -> None:
    for name in (b"caf\xe9.mp3", b"caf\xe8.mp3"):
        with open(bytes(folder) + b"/" + name, "wb") as file:
            file.write(b"sound")
    assert names(".") == names("caf*") == ["caf\\xe8.mp3", "caf\\xe9.mp3"]
    assert call("transcribe", ".", "-o", "out").code == 0
    assert sorted(os.listdir(bytes(folder) + b"/out")) == [b"caf\xe8.txt", b"caf\xe9.txt"]
    assert "gone\\xe9.mp3: no such file" in call("transcribe", os.fsdecode(b"gone\xe9.mp3"), "--json").err.replace(
        "\\\\", "\\"
    )


def test_too_long_an_output_name_does_not_stop_the_others(call: Call, touch: Touch, folder: Path) -> None:
    long = "x" * 251
    touch(f"in/{long}.mp3", "in/z.mp3", "in/" + "鵝" * 83 + ".mp3")
    done = call("transcribe", "in", "-o", "out", "-f", "json")
    assert (done.code, written(folder / "out")) == (2, ["z.json", "鵝" * 83 + ".json"])
    assert done.err.count("cannot be written") == 1
