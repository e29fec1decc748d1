"""`conure stream`: sends a recording to a server as live audio, and measures the lag of the text."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from conure.cli.captions import Captions, StreamFormat
from conure.cli.inputs import STDIN, find_inputs
from conure.cli.latency import Latencies, percentile
from conure.cli.reporter import DEFAULT_COMMON, Common, Reporter, print_stderr
from conure.cli.setting_flags import server_key, setting_flag
from conure.client import BadInput, Client, ClientError, Event, Final, Finished, Partial, Stream, Warned
from conure.constants import SAMPLE_RATE
from conure.errors import BadOption

if TYPE_CHECKING:
    from conure.audio.files import AudioReader

__all__ = ["Options", "app", "stream"]

EXAMPLES = """\
Examples:
  conure stream talk.mp3 --url ws://localhost:8000
  conure stream talk.mp3 --pace 0 --format json
"""

PACKET_SECONDS = 0.02
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    url: str = "ws://localhost:8000"
    """URL of the server."""

    key: Annotated[str | None, setting_flag("key")] = None

    pace: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    """Speed, as a multiple of real time; 0 is as fast as the server takes it."""

    model: str | None = None
    """Model of the server to use."""

    latency: Annotated[int | None, Parameter(validator=validators.Number(gt=0))] = None
    """Latency of the model, in milliseconds."""

    language: str | None = None
    """Language spoken, such as de or de-DE."""

    output_format: Annotated[StreamFormat, Parameter(name=["--format", "-f"])] = "text"
    """Text, or one line of JSON per event."""

    track: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None
    """Number of the audio track, from 1; by default the file's default track."""

    finalize: Annotated[bool, Parameter(negative="")] = False
    """Send a finalize before closing the stream."""


DEFAULTS = Options()

app = App(
    name="stream",
    help="Stream a recording to a server as live audio.",
    usage="Usage: conure stream RECORDING [OPTIONS]",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def stream(
    recording: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: Options = DEFAULTS,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Stream a recording to a server as live audio; print the text and its lag.

    Parameters
    ----------
    recording
        An audio or video file, or - for stdin.
    """
    report = common.begin()
    try:
        with _open_recording(recording, options.track) as reader:
            asyncio.run(_StreamRun(reader, options, report).run())
    except BadInput as error:
        raise BadOption(error.message, error.hint) from error
    except ClientError as error:
        report.report_server_error(error.code, error.message, _hint(error))
    return report.exit_code


def _open_recording(recording: str, track: int | None) -> AudioReader:
    from conure.audio.files import open_audio  # noqa: PLC0415  keeps FFmpeg out of --help

    inputs = find_inputs([recording])
    for _, error in inputs.missing:
        raise error
    if inputs.is_multiple:
        raise BadOption(f"{recording!r} is not a single recording", "give a file, or - for stdin")
    [item] = inputs.found
    source = sys.stdin.buffer if recording == STDIN or item.path is None else item.path
    return open_audio(source, rate=SAMPLE_RATE, track=track)


def _hint(error: ClientError) -> str | None:
    if error.hint is None and error.retry_after is not None:
        return f"try again in {error.retry_after:g} s"
    return error.hint


class _StreamRun:
    """Sends one recording and prints events as they arrive."""

    def __init__(self, reader: AudioReader, options: Options, report: Reporter) -> None:
        self.reader = reader
        self.options = options
        self.report = report
        self.lags = Latencies(PACKET_SECONDS)
        self.captions = Captions(options.output_format)
        self.problems: list[str] = []

    async def run(self) -> None:
        options = self.options
        live = Client(options.url, key=server_key(options.key)).stream(
            model=options.model, latency_ms=options.latency, language=options.language, sample_rate=SAMPLE_RATE
        )
        try:
            async with live as stream, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(stream))
                async for event in stream:
                    self._handle_event(event)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # both tasks fail for the same reason
        finally:
            self.captions.close()
        self._print_summary()

    async def _send(self, stream: Stream) -> None:
        """Sends packet n when its audio would have been spoken; late packets are sent without a pause."""
        started_at = time.monotonic()
        blocks = self.reader.blocks(1.0)
        number = 0
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            for packet in _packets(block):
                number += 1
                if self.options.pace:
                    due = started_at + number * PACKET_SECONDS / self.options.pace
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await stream.send(packet)
                self.lags.record_sent(time.monotonic())
        if self.options.finalize:
            await stream.finalize()
        await stream.close()

    def _handle_event(self, event: Event) -> None:
        now, lag = time.monotonic(), None
        if isinstance(event, Partial):
            lag = self.lags.lag_at(event.until, now)
            self.lags.partials.append(lag or 0.0)
        elif isinstance(event, Final):
            lag = self.lags.lag_at(event.end, now)
            self.lags.finals.append(lag or 0.0)
            self.lags.last_final = now
        elif isinstance(event, Warned):
            self.problems.append(event.message)
        elif isinstance(event, Finished):
            self.problems.extend(event.problems)
        self.captions.show(event, lag)

    def _print_summary(self) -> None:
        summary: dict[str, Any] = {
            "seconds": round(self.reader.seconds_read, 3),
            "partials": _summary(self.lags.partials),
            "finals": _summary(self.lags.finals),
            "last_sample_to_last_final": _rounded(self.lags.last_final_lag()),
            "problems": self.reader.problems + self.problems,
        }
        if self.report.json:
            print_stderr(json.dumps({"summary": summary}))
            return
        for problem in summary["problems"]:
            print_stderr(f"warning: {problem}")
        for kind in ("partials", "finals"):
            lags = summary[kind]
            percentiles = ", ".join(f"{name} {_format_seconds(lags[name])}" for name in PERCENTILES)
            print_stderr(f"{kind}: {lags['count']}, lag {percentiles}")
        print_stderr(f"last sample to last final: {_format_seconds(summary['last_sample_to_last_final'])}")


def _packets(block: Any) -> Iterator[Any]:
    """Splits a block [1, n] into packets [n]."""
    size = round(SAMPLE_RATE * PACKET_SECONDS)
    return (block[0, start : start + size] for start in range(0, block.shape[1], size))


def _summary(lags: Sequence[float]) -> dict[str, float | None]:
    return {"count": len(lags)} | {name: _rounded(percentile(lags, share)) for name, share in PERCENTILES.items()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _format_seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"
