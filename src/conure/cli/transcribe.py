"""`conure transcribe`: recordings in, text out. One model is loaded for all of them, and one bad file stops none.

Several are read at a time and share batches; one alone is read ahead while it is transcribed.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, BinaryIO, Literal, Protocol

from cyclopts import App, Parameter
from cyclopts.validators import Number

from conure.cli.inputs import STDIN, Input, Inputs, find_inputs
from conure.cli.outputs import CannotWrite, Outputs, form_of, is_folder, write_atomically, write_stdout
from conure.cli.progress import audio_bar, spinner
from conure.cli.reporter import PLAIN, Common, Reporter
from conure.cli.setting_flags import knob
from conure.cli.transcript_formats import Form, render
from conure.errors import (
    AudioNotFound,
    AudioTooLong,
    BadOption,
    ConureError,
    EngineFailed,
    NoSuchTrack,
    UnsupportedAudio,
)
from conure.safe_text import one_line
from conure.settings import Settings, load_settings
from conure.types import RunnerChoice, Transcript

__all__ = ["Options", "Recognizer", "app", "open_recognizer", "transcribe"]

EXAMPLES = """\
Examples:
  conure transcribe talk.mp3 -f srt -o talk.srt
  conure transcribe interviews/ -f json -o out/ --language de
"""

OF_A_RECORDING = (UnsupportedAudio, NoSuchTrack, AudioTooLong, AudioNotFound, EngineFailed)
"""Errors of ours that stop no other recording."""

Progress = Callable[[float, float | None], None]


class Recognizer(Protocol):
    """What this command needs of `conure.load(...)`."""

    def transcribe(
        self,
        source: Path | BinaryIO,
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float = ...,
        progress: Progress | None = None,
    ) -> Transcript: ...

    def transcribe_channels(
        self,
        source: Path | BinaryIO,
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float = ...,
        progress: Progress | None = None,
    ) -> list[Transcript]: ...

    def transcribe_many(
        self,
        sources: Sequence[Path | BinaryIO],
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float = ...,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Transcript | Exception]: ...

    def transcribe_channels_many(
        self,
        sources: Sequence[Path | BinaryIO],
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float = ...,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[list[Transcript] | Exception]: ...


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    form: Annotated[Form | None, Parameter(name=["--format", "-f"], show_default="txt")] = None
    """What to write: plain text, subtitles, JSON, or a line per word (start, end, confidence, word)."""

    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], show_default="stdout", allow_leading_hyphen=True)
    ] = None
    """A folder to write to; for a single recording also a file, whose suffix may tell the format."""

    model: Annotated[str | None, knob("model")] = None
    device: Annotated[str | None, knob("device")] = None
    runner: Annotated[RunnerChoice | None, knob("runner")] = None
    language: Annotated[str | None, knob("language")] = None

    channels: Literal["mix", "split"] = "mix"
    """Hear all channels as one, or transcribe each apart."""

    track: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Which of several audio tracks, from 1; without it the default one among those with sound."""

    max_hours: Annotated[float | None, knob("max_hours")] = None


DEFAULTS = Options()

app = App(
    name="transcribe",
    help="Recordings to text.",
    usage="Usage: conure transcribe RECORDING... [OPTIONS]",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def transcribe(
    *recordings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: Options = DEFAULTS,
    common: Common = PLAIN,
) -> int:
    """Recordings to text, on stdout or in files.

    Parameters
    ----------
    recordings
        Files of sound or video, folders, patterns such as '**/*.mp3', or - for stdin.
    """
    report = common.begin()
    _check_options(recordings)
    settings = load_settings(
        model=options.model,
        device=options.device,
        runner=options.runner,
        language=options.language,
        max_hours=options.max_hours,
    )
    inputs = find_inputs(recordings)
    for name, error in inputs.missing:
        report.refuse(error, name)
    if inputs.found:
        _Job(inputs, options, settings, report).run()
    return report.exit_code


def open_recognizer(settings: Settings) -> Recognizer:
    """The recognizer for the settings; its model is downloaded first if need be."""
    from conure.cli.downloads import ensure_on_disk  # noqa: PLC0415  --help shall not wait for the hub's library

    ensure_on_disk(settings.model)
    with spinner(f"loading {settings.model}"):
        from conure.service.recognizer import load  # noqa: PLC0415  it loads the engine

        recognizer = load(
            settings.model,
            device=settings.device,
            runner=settings.runner,
            cache=settings.cache,
            threads=settings.threads,
        )
    recognizer.segment_seconds = settings.segment_seconds
    recognizer.batch_seconds = settings.batch_seconds or recognizer.batch_seconds
    return recognizer


class _Job:
    """The recordings of one call."""

    def __init__(self, inputs: Inputs, options: Options, settings: Settings, report: Reporter) -> None:
        self.inputs = inputs
        self.settings = settings
        self.report = report
        self.split = options.channels == "split"
        self.track = options.track
        self.several = inputs.several or self.split
        output = _output_of(options.output)
        self.form: Form = options.form or _implied_form(output, inputs.several)
        self.outputs: Outputs | None = None
        if output is not None:
            self.outputs = Outputs(inputs.found, output, self.form, several=inputs.several)
        elif self.form in ("srt", "vtt", "words") and (self.split or len(inputs.found) > 1):
            raise BadOption(f"-f {self.form} of several recordings cannot go to stdout", hint="add -o FOLDER")

    def run(self) -> None:
        recognizer = open_recognizer(self.settings)
        if len(self.inputs.found) == 1:
            item = self.inputs.found[0]
            with self._told(item):
                self._deliver(0, item, self._listen(recognizer, item))
            return
        with closing(self._listen_to_all(recognizer)) as results:
            for (index, item), heard in zip(enumerate(self.inputs.found), results, strict=True):
                with self._told(item):
                    if isinstance(heard, Exception):
                        raise heard
                    self._deliver(index, item, heard)

    @contextmanager
    def _told(self, item: Input) -> Iterator[None]:
        """What concerns this recording alone is told here, and stops none of the others."""
        try:
            yield
        except OF_A_RECORDING as error:
            self.report.refuse(error, item.name)
        except CannotWrite as error:
            if error.concerns_all:
                raise
            self.report.refuse(error, item.name)
        except (ConureError, BrokenPipeError):
            raise  # they concern the call, not this recording
        except Exception as error:
            self.report.crash(error, item.name)

    def _listen(self, recognizer: Recognizer, item: Input) -> list[Transcript]:
        source = _source(item)
        language, limit = self.settings.language, self.settings.max_hours * 3600
        with audio_bar(PurePath(item.name).name) as progress:
            if self.split:
                return recognizer.transcribe_channels(
                    source, language=language, track=self.track, max_seconds=limit, progress=progress
                )
            return [
                recognizer.transcribe(source, language=language, track=self.track, max_seconds=limit, progress=progress)
            ]

    def _listen_to_all(self, recognizer: Recognizer) -> Generator[list[Transcript] | Exception, None, None]:
        sources = [_source(item) for item in self.inputs.found]
        language, limit, workers = self.settings.language, self.settings.max_hours * 3600, self.settings.decode_workers
        is_shown = self.outputs is None and sys.stdout.isatty()  # what is printed there would be torn by a bar
        with nullcontext() if is_shown else audio_bar(f"{len(sources)} recordings") as progress:
            if self.split:
                yield from recognizer.transcribe_channels_many(
                    sources,
                    language=language,
                    track=self.track,
                    max_seconds=limit,
                    workers=workers,
                    progress=progress,
                )
                return
            for heard in recognizer.transcribe_many(
                sources,
                language=language,
                track=self.track,
                max_seconds=limit,
                workers=workers,
                progress=progress,
            ):
                yield heard if isinstance(heard, Exception) else [heard]

    def _deliver(self, index: int, item: Input, transcripts: Sequence[Transcript]) -> None:
        for transcript in transcripts:
            channel = transcript.channel if self.split else None
            if self.outputs is None:
                write_stdout(self._heading(item, channel) + self._render(transcript, item))
            else:
                paths = self.outputs
                path = paths.paths[index] if channel is None else paths.of_channel(index, channel)
                write_atomically(path, render(transcript, self.form))

    def _render(self, transcript: Transcript, item: Input) -> str:
        return render(transcript, self.form, file=item.name if self.several else None)

    def _heading(self, item: Input, channel: int | None) -> str:
        if self.form != "txt" or not self.several:
            return ""
        return f"==> {one_line(item.name)}{'' if channel is None else f', channel {channel}'} <==\n"


def _source(item: Input) -> Path | BinaryIO:
    return sys.stdin.buffer if item.path is None else item.path


def _implied_form(output: str | None, several: bool) -> Form:
    if output is None or is_folder(output, several):
        return "txt"
    return form_of(output) or "txt"


def _output_of(asked: str | None) -> str | None:
    """None is stdout."""
    if asked is None or asked == STDIN:
        return None
    if asked.startswith("-") or not asked:
        raise BadOption(f"-o takes a file or a folder, not {asked!r}", hint=f"a name may be written ./{asked}")
    return asked


def _check_options(recordings: Sequence[str]) -> None:
    """What looks like an option and is no file was meant as one. The parser lets it through because of "-"."""
    if not recordings:
        raise BadOption("no recording was named", hint="conure transcribe talk.mp3, or - for stdin")
    for recording in recordings:
        if recording.startswith("-") and recording != STDIN and not Path(recording).exists():
            names = [name for argument in app.assemble_argument_collection() for name in argument.names]
            close = difflib.get_close_matches(recording.partition("=")[0], names, n=1)
            hint = f"did you mean {close[0]}?" if close else "`conure transcribe --help` shows what there is"
            raise BadOption(f"no such option: {recording}", hint)
