"""`conure bench`: measures the capacity of this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from conure.cli import bench_clips, bench_live
from conure.cli.bench_options import ServerFlags, given_options, interruptible
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, INTERRUPTED, REFUSED, Common, print_stderr
from conure.cli.setting_flags import HIDDEN, setting_flag
from conure.cli.tables import table
from conure.settings import Settings, load_settings

if TYPE_CHECKING:
    from conure.bench.capacity_search import CapacityFindings, CapacitySearch
    from conure.bench.server_flags import ServerOptions

__all__ = ["app", "bench"]

EXAMPLES = """\
Examples:
  conure bench --model tiny
  conure bench --live-models nemotron-3.5 --file-models parakeet --price 2.50 --plot figures/
"""

app = App(
    name="bench",
    help="Measure the capacity of this machine.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)
app.command(bench_live.live, help_epilogue=bench_live.EXAMPLES)
app.command(bench_clips.clips, help_epilogue=bench_clips.EXAMPLES)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    model: Annotated[str | None, Parameter(help="One model for both live audio and recordings.")] = None
    live_models: Annotated[str | None, setting_flag("live_models")] = None
    file_models: Annotated[str | None, setting_flag("file_models")] = None
    latency: Annotated[int, Parameter(help="Latency of the live model, in milliseconds.")] = 160
    promise: Annotated[
        float | None, Parameter(help="Target for the p99 lag, in milliseconds.", show_default="latency + 100")
    ] = None
    thorough: Annotated[
        bool, Parameter(negative="", help="Longer trials, also with other settings; half an hour or more.")
    ] = False
    seconds: Annotated[
        float | None, Parameter(help="Seconds of audio per stream in a trial.", show_default="10, with --thorough 60")
    ] = None
    at_once: Annotated[int, Parameter(help="Number of concurrent recordings.")] = 4
    audio: Annotated[Path | None, Parameter(help="Recording or folder to send.", show_default="a speech of 11 s")] = (
        None
    )
    price: Annotated[float | None, Parameter(help="Price of the machine, in dollars per hour.")] = None
    plot: Annotated[Path | None, Parameter(help="Folder for figures and their data (pip install 'conure[plot]').")] = (
        None
    )
    live: Annotated[str | None, HIDDEN] = None
    clips: Annotated[str | None, HIDDEN] = None


DEFAULTS = Options()
START = ServerFlags()


@app.default
def bench(*, options: Options = DEFAULTS, start: ServerFlags = START, common: Common = DEFAULT_COMMON) -> int:
    """Measure how many live streams this machine sustains and how fast it transcribes recordings; recommend settings.

    Starts a server and sends it more and more streams in real time until the p99 lag exceeds its target. Then confirms
    the recommended settings, with a margin. Takes two to three minutes if the models are on disk. Ctrl-C prints the
    results so far.
    """
    common.begin()
    from conure.bench.capacity_search import CapacityFindings, search_capacity  # noqa: PLC0415  keeps audio and sockets out of --help

    if options.plot is not None:
        from conure.bench.plots import ensure_can_draw  # noqa: PLC0415

        ensure_can_draw(options.plot)
    settings = _settings(options, start)
    search, findings = _capacity_search(options, start), CapacityFindings()
    _download(settings)
    print_stderr(
        "takes half an hour or more" if options.thorough else "takes two to three minutes; --thorough searches longer"
    )
    with interruptible() as outcome:
        search_capacity(search, findings, print_stderr)
        if options.plot is not None:
            _draw_figures(options.plot, settings, findings)
    write_stdout(_as_json(findings, options.price) if common.json else _render(findings, options.price))
    if outcome.interrupted:
        return INTERRUPTED
    return DONE if findings.confirmed else REFUSED


def _capacity_search(options: Options, start: ServerFlags) -> CapacitySearch:
    from conure.bench.capacity_search import QUICK, THOROUGH, CapacitySearch  # noqa: PLC0415
    from conure.bench.clip_bench import ClipBench  # noqa: PLC0415
    from conure.bench.sample_speech import sample_recording  # noqa: PLC0415
    from conure.bench.stream_bench import StreamBench  # noqa: PLC0415

    effort, audio = THOROUGH if options.thorough else QUICK, options.audio or sample_recording()
    seconds = effort.seconds if options.seconds is None else options.seconds
    return CapacitySearch(
        server_options=_server_options(options, start),
        live=StreamBench(audio=audio, latency_ms=options.latency, seconds=seconds, promise_ms=options.promise),
        clips=ClipBench(audio=audio, at_once=options.at_once, seconds=seconds),
        effort=effort,
        with_curve=options.plot is not None,
    )


def _settings(options: Options, start: ServerFlags) -> Settings:
    """Settings of the server to start. Raises BadOption."""
    given = _server_options(options, start)
    models = {name: given.get(name) or options.model for name in ("live_models", "file_models")}
    return load_settings(**{**given, **models})


def _server_options(options: Options, start: ServerFlags) -> ServerOptions:
    names = ("model", "live_models", "file_models", "live", "clips")
    return given_options(start, **{name: getattr(options, name) for name in names})


def _download(settings: Settings) -> None:
    """Downloads with a progress bar; the started server would download without one."""
    from conure.cli.downloads import ensure_on_disk  # noqa: PLC0415
    from conure.service.engine_plan import plan_from_settings  # noqa: PLC0415

    plan = plan_from_settings(settings)
    for name in dict.fromkeys(plan.live_models + plan.clip_models):
        ensure_on_disk(name)


def _draw_figures(folder: Path, settings: Settings, findings: CapacityFindings) -> None:
    from conure.bench.batch_bench import all_sizes, measure_batches  # noqa: PLC0415
    from conure.bench.machine import machine_line  # noqa: PLC0415
    from conure.bench.plots import draw_figures  # noqa: PLC0415
    from conure.service.engine_plan import plan_from_settings  # noqa: PLC0415

    plan = plan_from_settings(settings)
    print_stderr(f"batches of {plan.clip_models[0]}, without a server")
    try:
        measure_batches(plan, all_sizes(), findings.batches.append)
    finally:
        for path in draw_figures(folder, findings, machine_line(), plan.clip_models[0]):
            print_stderr(f"wrote {path}")


def _render(findings: CapacityFindings, price: float | None) -> str:
    from conure.bench.capacity_report import advice, memory, summary  # noqa: PLC0415
    from conure.bench.machine import machine_line  # noqa: PLC0415

    facts = table([("machine", machine_line()), *summary(findings, price)])
    return "\n".join([facts, table(memory(findings)), advice(findings)] if findings.best else [facts, advice(findings)])


def _as_json(findings: CapacityFindings, price: float | None) -> str:
    from conure.bench.capacity_report import capacity_as_dict  # noqa: PLC0415
    from conure.bench.machine import machine  # noqa: PLC0415

    return json.dumps({"machine": machine()} | capacity_as_dict(findings, price), indent=1) + "\n"
