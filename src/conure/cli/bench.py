"""`conure bench`: what this machine holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from conure.cli import bench_clips, bench_live
from conure.cli.bench_options import Start, chosen, interruptible
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, INTERRUPTED, REFUSED, Common, print_stderr
from conure.cli.setting_flags import HIDDEN, setting_flag
from conure.cli.tables import table
from conure.settings import Settings, load_settings

if TYPE_CHECKING:
    from conure.bench.capacity_search import CapacityFindings, CapacitySearch
    from conure.bench.server_flags import Choice

__all__ = ["app", "bench"]

EXAMPLES = """\
Examples:
  conure bench --model tiny
  conure bench --live-models nemotron-3.5 --file-models parakeet --price 2.50 --plot figures/
"""

app = App(
    name="bench",
    help="What this machine holds.",
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
    latency: Annotated[int, Parameter(help="Milliseconds of audio in a chunk.")] = 160
    promise: Annotated[
        float | None, Parameter(help="Milliseconds that p99 of the lag may be.", show_default="a chunk and 100")
    ] = None
    thorough: Annotated[
        bool, Parameter(negative="", help="Longer trials, and other settings too: half an hour or more.")
    ] = False
    seconds: Annotated[
        float | None, Parameter(help="Audio of each stream in a trial.", show_default="10, with --thorough 60")
    ] = None
    at_once: Annotated[int, Parameter(help="Recordings at once.")] = 4
    audio: Annotated[Path | None, Parameter(help="A recording or a folder; without it a speech of 11 s.")] = None
    price: Annotated[float | None, Parameter(help="Of the machine, in dollars an hour.")] = None
    plot: Annotated[
        Path | None, Parameter(help="A folder for figures and their numbers (pip install 'conure[plot]').")
    ] = None
    live: Annotated[str | None, HIDDEN] = None
    clips: Annotated[str | None, HIDDEN] = None


DEFAULTS = Options()
START = Start()


@app.default
def bench(*, options: Options = DEFAULTS, start: Start = START, common: Common = DEFAULT_COMMON) -> int:
    """How many live streams this machine holds in time, how fast it transcribes recordings, and the settings to use.

    A server is started and tried with more and more streams, at a person's pace and over real sockets, until one is
    late; then one with the settings to use, with a margin. Two to three minutes where the models are on disk. Ctrl-C
    ends it with what was found so far.
    """
    common.begin()
    from conure.bench.capacity_search import CapacityFindings, search_capacity  # noqa: PLC0415  --help shall not wait for audio and sockets

    if options.plot is not None:
        from conure.bench.plots import ensure_drawing  # noqa: PLC0415

        ensure_drawing(options.plot)
    settings = _settings(options, start)
    asked, found = _survey(options, start), CapacityFindings()
    _download(settings)
    print_stderr(
        "half an hour or more" if options.thorough else "two to three minutes; --thorough takes longer and finds more"
    )
    with interruptible() as outcome:
        search_capacity(asked, found, print_stderr)
        if options.plot is not None:
            _draw(options.plot, settings, found)
    write_stdout(_as_json(found, options.price) if common.json else _render(found, options.price))
    if outcome.interrupted:
        return INTERRUPTED
    return DONE if found.promised else REFUSED


def _survey(options: Options, start: Start) -> CapacitySearch:
    from conure.bench.capacity_search import QUICK, THOROUGH, CapacitySearch  # noqa: PLC0415
    from conure.bench.clip_bench import ClipBench  # noqa: PLC0415
    from conure.bench.sample_speech import shipped  # noqa: PLC0415
    from conure.bench.stream_bench import StreamBench  # noqa: PLC0415

    effort, audio = THOROUGH if options.thorough else QUICK, options.audio or shipped()
    seconds = effort.seconds if options.seconds is None else options.seconds
    return CapacitySearch(
        choice=_choice(options, start),
        live=StreamBench(audio=audio, latency_ms=options.latency, seconds=seconds, promise_ms=options.promise),
        clips=ClipBench(audio=audio, at_once=options.at_once, seconds=seconds),
        effort=effort,
        curve=options.plot is not None,
    )


def _settings(options: Options, start: Start) -> Settings:
    """Those of the server that is started. Raises BadOption."""
    given = _choice(options, start)
    models = {name: given.get(name) or options.model for name in ("live_models", "file_models")}
    return load_settings(**{**given, **models})


def _choice(options: Options, start: Start) -> Choice:
    names = ("model", "live_models", "file_models", "live", "clips")
    return chosen(start, **{name: getattr(options, name) for name in names})


def _download(settings: Settings) -> None:
    """Here it has a bar; the server that is started would do it without."""
    from conure.cli.downloads import ensure_on_disk  # noqa: PLC0415
    from conure.service.engine_plan import plan_from_settings  # noqa: PLC0415

    plan = plan_from_settings(settings)
    for name in dict.fromkeys(plan.live + plan.clips):
        ensure_on_disk(name)


def _draw(folder: Path, settings: Settings, found: CapacityFindings) -> None:
    from conure.bench.batch_bench import every_size, measure_batches  # noqa: PLC0415
    from conure.bench.machine import machine_line  # noqa: PLC0415
    from conure.bench.plots import draw  # noqa: PLC0415
    from conure.service.engine_plan import plan_from_settings  # noqa: PLC0415

    plan = plan_from_settings(settings)
    print_stderr(f"batches of {plan.clips[0]}, in the engine alone")
    try:
        measure_batches(plan, every_size(), found.batches.append)
    finally:
        for path in draw(folder, found, machine_line(), plan.clips[0]):
            print_stderr(f"wrote {path}")


def _render(found: CapacityFindings, price: float | None) -> str:
    from conure.bench.capacity_report import advice, memory, summary  # noqa: PLC0415
    from conure.bench.machine import machine_line  # noqa: PLC0415

    facts = table([("machine", machine_line()), *summary(found, price)])
    return "\n".join([facts, table(memory(found)), advice(found)] if found.best else [facts, advice(found)])


def _as_json(found: CapacityFindings, price: float | None) -> str:
    from conure.bench.capacity_report import capacity_as_dict  # noqa: PLC0415
    from conure.bench.machine import machine  # noqa: PLC0415

    return json.dumps({"machine": machine()} | capacity_as_dict(found, price), indent=1) + "\n"
