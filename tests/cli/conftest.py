"""A fake recognizer, and a working folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from conure.cli import transcribe
from conure.cli.main import main
from conure.errors import UnsupportedAudio, UnsupportedLanguage
from conure.settings import Settings
from conure.types import Segment, Transcript, Word

WORDS = (Word("Hello", 0.0, 0.4, 0.9), Word("there.", 0.4, 1.0, 0.8125))
TRANSCRIPT = Transcript("Hello there.", 1.5, "en", "fake", None, (Segment("Hello there.", 0.0, 1.0, WORDS),))


@dataclass
class FakeRecognizer:
    """Returns the same transcript for all recordings, except for special file names."""

    settings: Settings
    calls: list[tuple[object, dict[str, Any]]] = field(default_factory=list)
    workers: int | None = None
    """The `workers` argument of `transcribe_many`."""

    def transcribe(self, source: Path | BinaryIO, **options: Any) -> Transcript:
        name = source.name
        self.calls.append((name, options))
        if options["language"] == "xx":
            raise UnsupportedLanguage("fake does not know the language 'xx'", "it knows en")
        if "bad" in name:
            raise UnsupportedAudio(f"{source}: is not audio", "convert it")
        if "boom" in name:
            raise RuntimeError("a bug\nof ours")
        if "stop" in name:
            raise KeyboardInterrupt
        if not isinstance(source, Path):
            return replace(TRANSCRIPT, text=f"{len(source.read())} bytes")
        return TRANSCRIPT

    def transcribe_channels(self, source: Path | BinaryIO, **options: Any) -> list[Transcript]:
        return [replace(self.transcribe(source, **options), channel=channel) for channel in (0, 1)]

    def transcribe_many(
        self, sources: Sequence[Path | BinaryIO], workers: int | None = None, **options: Any
    ) -> Iterator[Transcript | Exception]:
        self.workers = workers
        for source in sources:
            try:
                yield self.transcribe(source, **options)
            except (UnsupportedAudio, RuntimeError) as error:
                yield error

    def transcribe_channels_many(
        self, sources: Sequence[Path | BinaryIO], **options: Any
    ) -> Iterator[list[Transcript] | Exception]:
        for result in self.transcribe_many(sources, **options):
            yield result if isinstance(result, Exception) else [replace(result, channel=channel) for channel in (0, 1)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; settings of the machine are ignored."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CONURE_{name.upper()}", raising=False)
    monkeypatch.delenv("CONURE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no cache"))
    monkeypatch.setenv("COLUMNS", "100")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def recognizers(monkeypatch: pytest.MonkeyPatch) -> list[FakeRecognizer]:
    """Every recognizer that was opened."""
    opened: list[FakeRecognizer] = []

    def open_fake(settings: Settings) -> FakeRecognizer:
        opened.append(FakeRecognizer(settings))
        return opened[-1]

    monkeypatch.setattr(transcribe, "open_recognizer", open_fake)
    return opened


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], recognizers: list[FakeRecognizer]) -> Call:
    """Run a command line in this process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def touch(folder: Path) -> Callable[..., None]:
    """Make files with arbitrary contents, and their folders."""

    def make(*names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"sound")

    return make
