"""`conure stream`: a recording to a server as if it were spoken now, and how fast text comes back."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from conure.cli.captions import Captions, StreamForm
from conure.cli.inputs import STDIN, find_inputs
from conure.cli.latency import Latencies, percentile
from conure.cli.reporter import PLAIN, Common, Reporter, tell
from conure.cli.setting_flags import knob, server_key
from conure.client import BadInput, Client, ClientError, Event, Final, Finished, Partial, Stream, Warned
from conure.errors import BadOption

if TYPE_CHECKING:
    from conure.audio.files import AudioReader

__all__ = ["Options", "app", "stream"]

EXAMPLES = """\
Examples:
  conure stream talk.mp3 --url ws://localhost:8000
  conure stream talk.mp3 --pace 0 --format json
"""

RATE = 16_000
PACKET_SECONDS = 0.02


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    url: str = "ws://localhost:8000"
    """The server."""

    key: Annotated[str | None, knob("key")] = None

    pace: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    """Times as fast as it was spoken; 0 is as fast as the server takes it."""

    model: str | None = None
    """The model that the server shall use."""

    latency: Annotated[int | None, Parameter(validator=validators.Number(gt=0))] = None
    """Milliseconds of audio that the model waits for."""

    language: str | None = None
    """The language spoken, such as de or de-DE."""

    form: Annotated[StreamForm, Parameter(name=["--format", "-f"])] = "text"
    """Text, or a line of JSON per event."""

    track: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None
    """Which of several audio tracks, from 1; without it the default one among those with sound."""

    finalize: Annotated[bool, Parameter(negative="")] = False
    """Ask for the last final before the stream is closed."""


DEFAULTS = Options()

app = App(
    name="stream",
    help="A recording to a server as live audio; what comes back, and how fast.",
    usage="Usage: conure stream RECORDING [OPTIONS]",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def stream(
    recording: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: Options = DEFAULTS,
    common: Common = PLAIN,
) -> int:
    """A recording to a server as live audio; what comes back, and how fast.

    Parameters
    ----------
    recording
        A file of sound or video, or - for stdin.
    """
    report = common.begin()
    try:
        with _open(recording, options.track) as reader:
            asyncio.run(_Show(reader, options, report).run())
    except BadInput as error:
        raise BadOption(error.message, error.hint) from error
    except ClientError as error:
        report.fail(error.code, error.message, _hint(error))
    return report.exit_code


def _open(recording: str, track: int | None) -> AudioReader:
    from conure.audio.files import open_audio  # noqa: PLC0415  --help shall not wait for FFmpeg

    inputs = find_inputs([recording])
    for _, error in inputs.missing:
        raise error
    if inputs.several:
        raise BadOption(f"{recording!r} is not one recording", "name a file, or - for stdin")
    [item] = inputs.found
    source = sys.stdin.buffer if recording == STDIN or item.path is None else item.path
    return open_audio(source, rate=RATE, track=track)


def _hint(error: ClientError) -> str | None:
    if error.hint is None and error.retry_after is not None:
        return f"try again in {error.retry_after:g} s"
    return error.hint


class _Show:
    """One recording, sent and read at once."""

    def __init__(self, reader: AudioReader, options: Options, report: Reporter) -> None:
        self.reader = reader
        self.options = options
        self.report = report
        self.lags = Latencies(PACKET_SECONDS)
        self.captions = Captions(options.form)
        self.problems: list[str] = []

    async def run(self) -> None:
        options = self.options
        live = Client(options.url, key=server_key(options.key)).stream(
            model=options.model, latency_ms=options.latency, language=options.language, sample_rate=RATE
        )
        try:
            async with live as stream, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(stream))
                async for event in stream:
                    self._take(event)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # who sends and who reads fail of the same
        finally:
            self.captions.close()
        self._sum_up()

    async def _send(self, stream: Stream) -> None:
        """Packet n is due when it would have been spoken; one that waited is followed at once."""
        begun = time.monotonic()
        blocks = self.reader.blocks(1.0)
        number = 0
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            for packet in _packets(block):
                number += 1
                if self.options.pace:
                    due = begun + number * PACKET_SECONDS / self.options.pace
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await stream.send(packet)
                self.lags.sent(time.monotonic())
        if self.options.finalize:
            await stream.finalize()
        await stream.close()

    def _take(self, event: Event) -> None:
        now, lag = time.monotonic(), None
        if isinstance(event, Partial):
            lag = self.lags.since(event.until, now)
            self.lags.partials.append(lag or 0.0)
        elif isinstance(event, Final):
            lag = self.lags.since(event.end, now)
            self.lags.finals.append(lag or 0.0)
            self.lags.last_final = now
        elif isinstance(event, Warned):
            self.problems.append(event.message)
        elif isinstance(event, Finished):
            self.problems.extend(event.problems)
        self.captions.show(event, lag)

    def _sum_up(self) -> None:
        summary: dict[str, Any] = {
            "seconds": round(self.reader.seconds_read, 3),
            "partials": _summary(self.lags.partials),
            "finals": _summary(self.lags.finals),
            "last_sample_to_last_final": _rounded(self.lags.after_last()),
            "problems": self.reader.problems + self.problems,
        }
        if self.report.json:
            tell(json.dumps({"summary": summary}))
            return
        for problem in summary["problems"]:
            tell(f"warning: {problem}")
        for kind in ("partials", "finals"):
            of = summary[kind]
            tell(f"{kind}: {of['count']}, lag p50 {_told(of['p50'])}, p90 {_told(of['p90'])}, p99 {_told(of['p99'])}")
        tell(f"last sample to last final: {_told(summary['last_sample_to_last_final'])}")


def _packets(block: Any) -> Iterator[Any]:
    """[1, n] in packets [n]."""
    size = round(RATE * PACKET_SECONDS)
    return (block[0, start : start + size] for start in range(0, block.shape[1], size))


def _summary(lags: Sequence[float]) -> dict[str, float | None]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {"count": len(lags)} | {name: _rounded(percentile(lags, share)) for name, share in shares.items()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _told(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"
