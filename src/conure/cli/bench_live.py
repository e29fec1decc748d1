"""`conure bench live`: how many live streams are held."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from conure.bench.server_flags import Choice, flags
from conure.cli.bench_options import Start, chosen, interruptible
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, INTERRUPTED, REFUSED, Common, print_stderr
from conure.cli.setting_flags import server_key, setting_flag
from conure.cli.tables import table
from conure.errors import BadOption

if TYPE_CHECKING:
    from conure.bench.server import Server
    from conure.bench.trial import Trial

__all__ = ["EXAMPLES", "live", "render", "server_of"]

EXAMPLES = """\
Examples:
  conure bench live --model nemotron-3.5 --search --price 2.50
  conure bench live --url http://server:8000 --streams 200 --json
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    streams: Annotated[int, Parameter(help="Streams at once; with --search those to begin with.")] = 40
    latency: Annotated[int, Parameter(help="Milliseconds of audio in a chunk.")] = 160
    promise: Annotated[
        float | None, Parameter(help="Milliseconds that p99 of the lag may be.", show_default="a chunk and 100")
    ] = None
    seconds: Annotated[float, Parameter(help="Audio of each stream.")] = 60.0
    search: Annotated[bool, Parameter(negative="", help="Find the most streams that are held.")] = False
    packet_ms: Annotated[int, Parameter(help="Milliseconds of audio in a message.")] = 20
    audio: Annotated[Path | None, Parameter(help="A recording or a folder; without it a speech of 11 s.")] = None
    price: Annotated[float | None, Parameter(help="Of the machine, in dollars an hour.")] = None
    url: Annotated[str | None, Parameter(help="A server that runs; without it one is started.")] = None
    key: Annotated[str | None, setting_flag("key")] = None
    model: Annotated[str | None, setting_flag("live_models")] = None


DEFAULTS = Options()
START = Start()


def live(*, options: Options = DEFAULTS, start: Start = START, common: Common = DEFAULT_COMMON) -> int:
    """How many live streams are held: in time, and each word as if the stream were alone.

    Streams speak at a person's pace, over real sockets. They are held where p99 of the lag is what is promised,
    none is refused, and each transcript is that of the stream alone. Ctrl-C ends it with what was found so far.
    """
    common.begin()
    from conure.bench.report import line  # noqa: PLC0415
    from conure.bench.sample_speech import shipped  # noqa: PLC0415
    from conure.bench.server import NO_CLIPS  # noqa: PLC0415
    from conure.bench.stream_bench import StreamBench, measure  # noqa: PLC0415  --help shall not wait for audio and sockets

    bench = StreamBench(
        audio=options.audio or shipped(),
        streams=options.streams,
        latency_ms=options.latency,
        seconds=options.seconds,
        model=options.model if options.url else None,
        packet_ms=options.packet_ms,
        search=options.search,
        promise_ms=options.promise,
    )
    trials: list[Trial] = []

    def note(trial: Trial) -> None:
        trials.append(trial)
        print_stderr(line(trial))

    given = chosen(start, live_models=None if options.url else options.model)
    with interruptible() as outcome, server_of(options.url, options.key, given, {"file_models": NO_CLIPS}) as server:
        measure(bench, server, note)
    if trials:
        write_stdout(_as_json(trials, options.price) if common.json else render(trials, options.price))
    if outcome.interrupted:
        return INTERRUPTED
    return DONE if any(trial.fault is None for trial in trials) else REFUSED


def render(trials: Sequence[Trial], price: float | None) -> str:
    """The largest that was held, and the machine that held it, as tables."""
    from conure.bench.machine import machine_line  # noqa: PLC0415
    from conure.bench.report import best_of, facts, spreads  # noqa: PLC0415

    best = best_of(trials)
    return table([("machine", machine_line()), *facts(best, price)]) + "\n" + table(spreads(best))


def server_of(url: str | None, key: str | None, given: Choice, others: Choice) -> AbstractContextManager[Server]:
    """The one there, or one that is started as it was given, and with others beside."""
    from conure.bench.server import start_server, the_server_at  # noqa: PLC0415

    if url is None:
        return start_server(flags({**given, **others}))
    if given:
        wrong = ", ".join(flags(dict.fromkeys(given, ""))[::2])
        raise BadOption(f"{wrong} is the server's, and it runs already", "leave it out, or leave out --url")
    return nullcontext(the_server_at(url, server_key(key)))


def _as_json(trials: Sequence[Trial], price: float | None) -> str:
    from conure.bench.machine import machine  # noqa: PLC0415
    from conure.bench.report import as_dict  # noqa: PLC0415

    return json.dumps({"machine": machine()} | as_dict(trials, price), indent=1) + "\n"
