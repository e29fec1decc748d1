"""`conure bench live`: measures how many live streams a server sustains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from conure.bench.server_flags import ServerOptions, flags
from conure.cli.bench_options import ServerFlags, given_options, interruptible
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, INTERRUPTED, REFUSED, Common, print_stderr
from conure.cli.setting_flags import server_key, setting_flag
from conure.cli.tables import table
from conure.errors import BadOption

if TYPE_CHECKING:
    from conure.bench.server import Server
    from conure.bench.trial import Trial

__all__ = ["EXAMPLES", "live", "render", "open_server"]

EXAMPLES = """\
Examples:
  conure bench live --model nemotron-3.5 --search --price 2.50
  conure bench live --url http://server:8000 --streams 200 --json
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    streams: Annotated[int, Parameter(help="Number of concurrent streams; with --search the first one tried.")] = 40
    latency: Annotated[int, Parameter(help="Latency of the model, in milliseconds.")] = 160
    promise: Annotated[
        float | None, Parameter(help="Target for the p99 lag, in milliseconds.", show_default="latency + 100")
    ] = None
    seconds: Annotated[float, Parameter(help="Seconds of audio per stream.")] = 60.0
    search: Annotated[bool, Parameter(negative="", help="Search the largest number of streams that is sustained.")] = (
        False
    )
    packet_ms: Annotated[int, Parameter(help="Milliseconds of audio per packet.")] = 20
    audio: Annotated[Path | None, Parameter(help="Recording or folder to send.", show_default="a speech of 11 s")] = (
        None
    )
    price: Annotated[float | None, Parameter(help="Price of the machine, in dollars per hour.")] = None
    url: Annotated[str | None, Parameter(help="URL of a running server; by default one is started.")] = None
    key: Annotated[str | None, setting_flag("key")] = None
    model: Annotated[str | None, setting_flag("live_models")] = None


DEFAULTS = Options()
START = ServerFlags()


def live(*, options: Options = DEFAULTS, start: ServerFlags = START, common: Common = DEFAULT_COMMON) -> int:
    """Measure how many live streams a server sustains.

    Streams send audio in real time over sockets. They are sustained if the p99 lag is within its target, none is
    rejected, and each transcript equals that of a single stream. Ctrl-C prints the results so far.
    """
    common.begin()
    from conure.bench.report import trial_line  # noqa: PLC0415
    from conure.bench.sample_speech import sample_recording  # noqa: PLC0415
    from conure.bench.server import NO_CLIPS  # noqa: PLC0415
    from conure.bench.stream_bench import StreamBench, measure_streams  # noqa: PLC0415  keeps audio and sockets out of --help

    bench = StreamBench(
        audio=options.audio or sample_recording(),
        streams=options.streams,
        latency_ms=options.latency,
        seconds=options.seconds,
        model=options.model if options.url else None,
        packet_ms=options.packet_ms,
        search=options.search,
        promise_ms=options.promise,
    )
    trials: list[Trial] = []

    def record(trial: Trial) -> None:
        trials.append(trial)
        print_stderr(trial_line(trial))

    server_options = given_options(start, live_models=None if options.url else options.model)
    with (
        interruptible() as outcome,
        open_server(options.url, options.key, server_options, {"file_models": NO_CLIPS}) as server,
    ):
        measure_streams(bench, server, record)
    if trials:
        write_stdout(_as_json(trials, options.price) if common.json else render(trials, options.price))
    if outcome.interrupted:
        return INTERRUPTED
    return DONE if any(trial.fault is None for trial in trials) else REFUSED


def render(trials: Sequence[Trial], price: float | None) -> str:
    """The largest sustained trial and the machine, as tables."""
    from conure.bench.machine import machine_line  # noqa: PLC0415
    from conure.bench.report import best_of, spread_table, trial_facts  # noqa: PLC0415

    best = best_of(trials)
    return table([("machine", machine_line()), *trial_facts(best, price)]) + "\n" + table(spread_table(best))


def open_server(
    url: str | None, key: str | None, server_options: ServerOptions, fixed_options: ServerOptions
) -> AbstractContextManager[Server]:
    """The server at `url`, or a new one with these options. Raises BadOption for options with a running server."""
    from conure.bench.server import connect_to_server, start_server  # noqa: PLC0415

    if url is None:
        return start_server(flags({**server_options, **fixed_options}))
    if server_options:
        names = ", ".join(flags(dict.fromkeys(server_options, ""))[::2])
        raise BadOption(f"{names} has no effect on a running server", "omit it or --url")
    return nullcontext(connect_to_server(url, server_key(key)))


def _as_json(trials: Sequence[Trial], price: float | None) -> str:
    from conure.bench.machine import machine  # noqa: PLC0415
    from conure.bench.report import trials_as_dict  # noqa: PLC0415

    return json.dumps({"machine": machine()} | trials_as_dict(trials, price), indent=1) + "\n"
