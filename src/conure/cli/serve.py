"""`conure serve`: one server for live audio and recordings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from conure.cli.knobs import knob
from conure.cli.reporting import DONE, PLAIN, Common
from conure.engine.plan import ModelCard
from conure.settings import Settings, load_settings
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.service.serving import Serving

__all__ = ["Options", "app", "serve"]

EXAMPLES = """\
Examples:
  conure serve --model tiny --port 9000
  conure serve --live nemotron-3.5 --clips parakeet --host 0.0.0.0
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    model: Annotated[str | None, Parameter(help="One model for both live audio and recordings.")] = None
    live: Annotated[str | None, knob("live")] = None
    clips: Annotated[str | None, knob("clips")] = None
    device: Annotated[str | None, knob("device")] = None
    runner: Annotated[RunnerChoice | None, knob("runner")] = None
    threads: Annotated[int | None, knob("threads")] = None
    processes: Annotated[int | None, knob("processes")] = None
    host: Annotated[str | None, knob("host")] = None
    port: Annotated[int | None, knob("port")] = None
    tcp_port: Annotated[int | None, knob("tcp_port")] = None
    status_port: Annotated[int | None, knob("status_port")] = None
    slots: Annotated[int | None, knob("slots")] = None
    device_memory: Annotated[float | None, knob("device_memory")] = None
    resume_seconds: Annotated[float | None, knob("resume_seconds")] = None
    drain_seconds: Annotated[float | None, knob("drain_seconds")] = None


DEFAULTS = Options()

app = App(
    name="serve",
    help="A server for live audio and recordings.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def serve(*, options: Options = DEFAULTS, common: Common = PLAIN) -> int:
    """A server for live audio and recordings. Ctrl-C or SIGTERM: open streams finish, then it ends."""
    common.begin()
    settings = _settings(options)
    from conure.cli.serving import run  # noqa: PLC0415  --help shall not wait for what it loads

    run(settings, _announce)
    return DONE


def _settings(options: Options) -> Settings:
    return load_settings(
        model=options.model,
        live=options.live or options.model,
        clips=options.clips or options.model,
        device=options.device,
        runner=options.runner,
        threads=options.threads,
        processes=options.processes,
        host=options.host,
        port=options.port,
        tcp_port=options.tcp_port,
        status_port=options.status_port,
        slots=options.slots,
        device_memory=options.device_memory,
        resume_seconds=options.resume_seconds,
        drain_seconds=options.drain_seconds,
    )


def _announce(serving: Serving, settings: Settings, seconds: float) -> None:
    """Five lines on stderr: model, device, plan, doors, ready."""
    live = ", ".join(card.name for card in serving.models if card.latencies)
    clips = ", ".join(card.name for card in serving.models if card.clips)
    runners = ", ".join(dict.fromkeys(card.runner for card in serving.models))
    rooms = "; ".join(_room(card) for card in serving.models if card.latencies)
    lines = (
        f"models  live {live} · recordings {clips}",
        f"device  {settings.device}: {runners}",
        f"plan    streams in time: {rooms}",
        f"doors   {serving.web} (ws /v1/stream, /ws; post /v1/transcribe), tcp {serving.tcp}, status {serving.status}",
        f"ready   in {seconds:.1f} s",
    )
    print("\n".join(lines), file=sys.stderr, flush=True)


def _room(card: ModelCard) -> str:
    counts = zip(card.latencies, card.capacity, strict=True)
    return ", ".join(f"{count} at {latency} ms" for latency, count in counts)
