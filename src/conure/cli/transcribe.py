"""`conure transcribe`: transcribes recordings. One model is loaded for all; errors of a file do not stop the others.

Several recordings are decoded at a time and share batches. A single one is decoded ahead of the model.
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
from conure.cli.outputs import CannotWrite, Outputs, format_from_suffix, is_folder, write_atomically, write_stdout
from conure.cli.progress import audio_bar, spinner
from conure.cli.reporter import DEFAULT_COMMON, Common, Reporter
from conure.cli.setting_flags import setting_flag
from conure.cli.transcript_formats import TranscriptFormat, render_transcript
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

RECORDING_ERRORS = (UnsupportedAudio, NoSuchTrack, AudioTooLong, AudioNotFound, EngineFailed)
"""Errors of one recording: they are reported, and the next recording follows."""

Progress = Callable[[float, float | None], None]


class Recognizer(Protocol):
    """The methods of `conure.load(...)` that this command uses."""

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
    output_format: Annotated[TranscriptFormat | None, Parameter(name=["--format", "-f"], show_default="txt")] = None
    """Output format: plain text, subtitles, JSON, or one line per word (start, end, confidence, word)."""

    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], show_default="stdout", allow_leading_hyphen=True)
    ] = None
    """Folder to write to; for a single recording also a file, whose suffix selects the format."""

    model: Annotated[str | None, setting_flag("model")] = None
    device: Annotated[str | None, setting_flag("device")] = None
    runner: Annotated[RunnerChoice | None, setting_flag("runner")] = None
    language: Annotated[str | None, setting_flag("language")] = None

    channels: Literal["mix", "split"] = "mix"
    """Mix all channels into one, or transcribe each separately."""

    track: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Number of the audio track, from 1; by default the file's default track."""

    max_hours: Annotated[float | None, setting_flag("max_hours")] = None


DEFAULTS = Options()

app = App(
    name="transcribe",
    help="Transcribe recordings.",
    usage="Usage: conure transcribe RECORDING... [OPTIONS]",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def transcribe(
    *recordings: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: Options = DEFAULTS,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Transcribe recordings to stdout or to files.

    Parameters
    ----------
    recordings
        Audio or video files, folders, patterns such as '**/*.mp3', or - for stdin.
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
        report.report_error(error, name)
    if inputs.found:
        _Run(inputs, options, settings, report).run()
    return report.exit_code


def open_recognizer(settings: Settings) -> Recognizer:
    """The recognizer for the settings. Downloads its model if it is not on disk."""
    from conure.cli.downloads import ensure_on_disk  # noqa: PLC0415  keeps the hub's library out of --help

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


class _Run:
    """Transcribes and writes the recordings of one command."""

    def __init__(self, inputs: Inputs, options: Options, settings: Settings, report: Reporter) -> None:
        self.inputs = inputs
        self.settings = settings
        self.report = report
        self.split = options.channels == "split"
        self.track = options.track
        self.is_multiple = inputs.is_multiple or self.split
        output = _parse_output(options.output)
        self.format: TranscriptFormat = options.output_format or _default_format(output, inputs.is_multiple)
        self.outputs: Outputs | None = None
        if output is not None:
            self.outputs = Outputs(inputs.found, output, self.format, is_multiple=inputs.is_multiple)
        elif self.format in ("srt", "vtt", "words") and (self.split or len(inputs.found) > 1):
            raise BadOption(f"-f {self.format} cannot write several recordings to stdout", hint="add -o FOLDER")

    def run(self) -> None:
        recognizer = open_recognizer(self.settings)
        if len(self.inputs.found) == 1:
            item = self.inputs.found[0]
            with self._report_errors(item):
                self._write(0, item, self._transcribe(recognizer, item))
            return
        with closing(self._transcribe_all(recognizer)) as results:
            for (index, item), result in zip(enumerate(self.inputs.found), results, strict=True):
                with self._report_errors(item):
                    if isinstance(result, Exception):
                        raise result
                    self._write(index, item, result)

    @contextmanager
    def _report_errors(self, item: Input) -> Iterator[None]:
        """Reports errors of this recording and suppresses them; errors of the whole command pass through."""
        try:
            yield
        except RECORDING_ERRORS as error:
            self.report.report_error(error, item.name)
        except CannotWrite as error:
            if error.affects_all:
                raise
            self.report.report_error(error, item.name)
        except (ConureError, BrokenPipeError):
            raise
        except Exception as error:
            self.report.report_crash(error, item.name)

    def _transcribe(self, recognizer: Recognizer, item: Input) -> list[Transcript]:
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

    def _transcribe_all(self, recognizer: Recognizer) -> Generator[list[Transcript] | Exception, None, None]:
        sources = [_source(item) for item in self.inputs.found]
        language, limit, workers = self.settings.language, self.settings.max_hours * 3600, self.settings.decode_workers
        prints_to_terminal = (
            self.outputs is None and sys.stdout.isatty()
        )  # a progress bar would mix with the transcripts
        with nullcontext() if prints_to_terminal else audio_bar(f"{len(sources)} recordings") as progress:
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
            for result in recognizer.transcribe_many(
                sources,
                language=language,
                track=self.track,
                max_seconds=limit,
                workers=workers,
                progress=progress,
            ):
                yield result if isinstance(result, Exception) else [result]

    def _write(self, index: int, item: Input, transcripts: Sequence[Transcript]) -> None:
        for transcript in transcripts:
            channel = transcript.channel if self.split else None
            if self.outputs is None:
                write_stdout(self._heading(item, channel) + self._render(transcript, item))
            else:
                paths = self.outputs
                path = paths.paths[index] if channel is None else paths.of_channel(index, channel)
                write_atomically(path, render_transcript(transcript, self.format))

    def _render(self, transcript: Transcript, item: Input) -> str:
        return render_transcript(transcript, self.format, file=item.name if self.is_multiple else None)

    def _heading(self, item: Input, channel: int | None) -> str:
        if self.format != "txt" or not self.is_multiple:
            return ""
        return f"==> {one_line(item.name)}{'' if channel is None else f', channel {channel}'} <==\n"


def _source(item: Input) -> Path | BinaryIO:
    return sys.stdin.buffer if item.path is None else item.path


def _default_format(output: str | None, is_multiple: bool) -> TranscriptFormat:
    if output is None or is_folder(output, is_multiple):
        return "txt"
    return format_from_suffix(output) or "txt"


def _parse_output(output: str | None) -> str | None:
    """The value of -o, None for stdout. Raises BadOption."""
    if output is None or output == STDIN:
        return None
    if output.startswith("-") or not output:
        raise BadOption(f"-o takes a file or a folder, not {output!r}", hint=f"for a file of this name, use ./{output}")
    return output


def _check_options(recordings: Sequence[str]) -> None:
    """Raises BadOption for an unknown option: the parser takes "-" as a recording, and so all that begins with it."""
    if not recordings:
        raise BadOption("no recording given", hint="conure transcribe talk.mp3, or - for stdin")
    for recording in recordings:
        if recording.startswith("-") and recording != STDIN and not Path(recording).exists():
            names = [name for argument in app.assemble_argument_collection() for name in argument.names]
            close = difflib.get_close_matches(recording.partition("=")[0], names, n=1)
            hint = f"did you mean {close[0]}?" if close else "see `conure transcribe --help`"
            raise BadOption(f"no such option: {recording}", hint)
