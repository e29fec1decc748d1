"""`conure bench clips`: measures the throughput of recordings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from conure.cli.bench_live import open_server
from conure.cli.bench_options import ServerFlags, given_options, interruptible
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, INTERRUPTED, Common, print_stderr
from conure.cli.setting_flags import setting_flag
from conure.cli.tables import table

if TYPE_CHECKING:
    from conure.bench.clip_bench import ClipTrial

__all__ = ["EXAMPLES", "clips"]

EXAMPLES = """\
Examples:
  conure bench clips --model parakeet --at-once 8 --price 2.50
  conure bench clips --url http://server:8000 --length 600 --json
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    at_once: Annotated[int, Parameter(help="Number of concurrent recordings.")] = 4
    length: Annotated[float, Parameter(help="Length of each recording, in seconds.")] = 60.0
    seconds: Annotated[float, Parameter(help="Duration of each of both measurements, in seconds.")] = 15.0
    audio: Annotated[Path | None, Parameter(help="Recording or folder to send.", show_default="a speech of 11 s")] = (
        None
    )
    price: Annotated[float | None, Parameter(help="Price of the machine, in dollars per hour.")] = None
    url: Annotated[str | None, Parameter(help="URL of a running server; by default one is started.")] = None
    key: Annotated[str | None, setting_flag("key")] = None
    model: Annotated[str | None, setting_flag("model")] = None


DEFAULTS = Options()
START = ServerFlags()


def clips(*, options: Options = DEFAULTS, start: ServerFlags = START, common: Common = DEFAULT_COMMON) -> int:
    """Measure how fast a server transcribes recordings, one at a time and several at once.

    Throughput is a multiple of real time (RTFx). Ctrl-C prints the results so far.
    """
    common.begin()
    from conure.bench.clip_bench import ClipBench, measure_clips  # noqa: PLC0415  keeps audio out of --help
    from conure.bench.report import clips_line  # noqa: PLC0415
    from conure.bench.sample_speech import sample_recording  # noqa: PLC0415
    from conure.bench.server import NO_LIVE  # noqa: PLC0415

    bench = ClipBench(
        audio=options.audio or sample_recording(),
        at_once=options.at_once,
        length=options.length,
        seconds=options.seconds,
        model=options.model if options.url else None,
    )
    trials: list[ClipTrial] = []

    def record(trial: ClipTrial) -> None:
        trials.append(trial)
        print_stderr(clips_line(trial))

    server_options = given_options(start, model=None if options.url else options.model)
    with (
        interruptible() as outcome,
        open_server(options.url, options.key, server_options, {"live_models": NO_LIVE}) as server,
    ):
        measure_clips(bench, server, record)
    if trials:
        write_stdout(_as_json(trials, options.price) if common.json else _render(trials, options.price))
    return INTERRUPTED if outcome.interrupted else DONE


def _render(trials: list[ClipTrial], price: float | None) -> str:
    from conure.bench.machine import machine_line  # noqa: PLC0415
    from conure.bench.report import clips_facts  # noqa: PLC0415

    return table([("machine", machine_line()), *clips_facts(trials, price)])


def _as_json(trials: list[ClipTrial], price: float | None) -> str:
    from conure.bench.machine import machine  # noqa: PLC0415
    from conure.bench.report import clips_as_dict  # noqa: PLC0415

    return json.dumps({"machine": machine()} | clips_as_dict(trials, price), indent=1) + "\n"
