"""`conure bench`: what this machine holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from conure.cli.knobs import knob
from conure.cli.outputs import write_stdout
from conure.cli.reporting import DONE, PLAIN, REFUSED, Common, tell
from conure.cli.tables import table
from conure.errors import BadOption
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.bench.server import Server
    from conure.bench.trial import Trial

__all__ = ["app", "live", "render"]

EXAMPLES = """\
Examples:
  conure bench live --model nemotron-3.5 --search --price 2.50
  conure bench live --url http://server:8000 --streams 200 --json
"""

app = App(
    name="bench",
    help="What this machine holds.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    streams: Annotated[int, Parameter(help="Streams at once; with --search those to begin with.")] = 40
    latency: Annotated[int, Parameter(help="Milliseconds of audio in a chunk.")] = 160
    seconds: Annotated[float, Parameter(help="Audio of each stream.")] = 60.0
    search: Annotated[bool, Parameter(negative="", help="Find the most streams that are held.")] = False
    packet_ms: Annotated[int, Parameter(help="Milliseconds of audio in a message.")] = 20
    audio: Annotated[Path | None, Parameter(help="A recording or a folder; without it a speech of 11 s.")] = None
    price: Annotated[float | None, Parameter(help="Of the machine, in dollars an hour.")] = None
    url: Annotated[str | None, Parameter(help="A server that runs; without it one is started.")] = None
    model: Annotated[str | None, knob("live")] = None
    device: Annotated[str | None, knob("device")] = None
    runner: Annotated[RunnerChoice | None, knob("runner")] = None
    threads: Annotated[int | None, knob("threads")] = None
    slots: Annotated[int | None, knob("slots")] = None


DEFAULTS = Options()


@app.command(help_epilogue=EXAMPLES)
def live(*, options: Options = DEFAULTS, common: Common = PLAIN) -> int:
    """How many live streams are held: in time, and each word as if the stream were alone.

    Streams speak at a person's pace, over real sockets. They are held where p99 of the lag is at most
    a chunk and 100 ms, none is refused, and each transcript is that of the stream alone.
    """
    common.begin()
    from conure.bench.live import LiveBench, measure  # noqa: PLC0415  --help shall not wait for audio and sockets
    from conure.bench.report import line  # noqa: PLC0415
    from conure.bench.speech import shipped  # noqa: PLC0415

    bench = LiveBench(
        audio=options.audio or shipped(),
        streams=options.streams,
        latency_ms=options.latency,
        seconds=options.seconds,
        model=options.model if options.url else None,
        packet_ms=options.packet_ms,
        search=options.search,
    )
    with _server(options) as server:
        trials = measure(bench, server, lambda trial: tell(line(trial)))
    write_stdout(_as_json(trials, options.price) if common.json else render(trials, options.price))
    return DONE if any(trial.fault is None for trial in trials) else REFUSED


def render(trials: Sequence[Trial], price: float | None) -> str:
    """The largest that was held, and the machine that held it, as tables."""
    from conure.bench.machine import machine  # noqa: PLC0415
    from conure.bench.report import best_of, facts, spreads  # noqa: PLC0415

    best, here = best_of(trials), machine()
    known = [("machine", f"{here['processor']}, {here['cores']} cores"), *facts(best, price)]
    return table(known) + "\n" + table(spreads(best))


def _as_json(trials: Sequence[Trial], price: float | None) -> str:
    from conure.bench.machine import machine  # noqa: PLC0415
    from conure.bench.report import as_dict  # noqa: PLC0415

    return json.dumps({"machine": machine()} | as_dict(trials, price), indent=1) + "\n"


def _server(options: Options) -> AbstractContextManager[Server]:
    from conure.bench.server import NO_CLIPS, start_server, the_server_at  # noqa: PLC0415

    given: dict[str, Any] = {
        "--live": options.model,
        "--device": options.device,
        "--runner": options.runner,
        "--threads": options.threads,
        "--slots": options.slots,
    }
    if options.url is None:
        flags = [text for flag, value in given.items() if value is not None for text in (flag, str(value))]
        return start_server([*flags, "--clips", NO_CLIPS])
    wrong = [flag for flag, value in given.items() if value is not None and flag != "--live"]
    if wrong:
        raise BadOption(f"{', '.join(wrong)} is the server's, and it runs already", "leave it out, or leave out --url")
    return nullcontext(the_server_at(options.url))
