"""`conure serve`: one server for live audio and recordings."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from conure.cli.reporter import DEFAULT_COMMON, DONE, Common
from conure.cli.setting_flags import HIDDEN, setting_flag
from conure.engine.plan import ModelInfo
from conure.json_stderr import redirect_stderr
from conure.settings import Settings, load_settings, with_current_names
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.service.server_info import ServerInfo

__all__ = ["Options", "app", "serve"]

Port = int | Literal["free"]

EXAMPLES = """\
Examples:
  conure serve --model tiny --port 9000
  conure serve --live-models nemotron-3.5 --file-models parakeet --host 0.0.0.0 --keys keys.json
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    model: Annotated[str | None, Parameter(help="One model for both live audio and recordings.")] = None
    live_models: Annotated[str | None, setting_flag("live_models")] = None
    file_models: Annotated[str | None, setting_flag("file_models")] = None
    device: Annotated[str | None, setting_flag("device")] = None
    runner: Annotated[RunnerChoice | None, setting_flag("runner")] = None
    threads: Annotated[int | None, setting_flag("threads")] = None
    processes: Annotated[int | None, setting_flag("processes")] = None
    host: Annotated[str | None, setting_flag("host")] = None
    port: Annotated[Port | None, setting_flag("port")] = None
    tcp_port: Annotated[Port | None, setting_flag("tcp_port")] = None
    grpc_port: Annotated[Port | None, setting_flag("grpc_port")] = None
    wyoming_port: Annotated[Port | None, setting_flag("wyoming_port")] = None
    status_port: Annotated[Port | None, setting_flag("status_port")] = None
    disable: Annotated[str | None, setting_flag("disable")] = None
    keys: Annotated[Path | None, setting_flag("keys")] = None
    allow_anonymous: Annotated[bool | None, setting_flag("allow_anonymous")] = None
    tls_certificate: Annotated[Path | None, setting_flag("tls_certificate")] = None
    tls_key: Annotated[Path | None, setting_flag("tls_key")] = None
    cors: Annotated[str | None, setting_flag("cors")] = None
    max_streams: Annotated[int | None, setting_flag("max_streams")] = None
    device_memory: Annotated[float | None, setting_flag("device_memory")] = None
    max_connections: Annotated[int | None, setting_flag("max_connections")] = None
    max_unauthenticated: Annotated[int | None, setting_flag("max_unauthenticated")] = None
    start_seconds: Annotated[float | None, setting_flag("start_seconds")] = None
    resume_seconds: Annotated[float | None, setting_flag("resume_seconds")] = None
    drain_seconds: Annotated[float | None, setting_flag("drain_seconds")] = None
    live: Annotated[str | None, HIDDEN] = None
    clips: Annotated[str | None, HIDDEN] = None
    without: Annotated[str | None, HIDDEN] = None
    open_to_all: Annotated[bool | None, HIDDEN] = None
    slots: Annotated[int | None, HIDDEN] = None
    max_unidentified: Annotated[int | None, HIDDEN] = None


DEFAULTS = Options()

app = App(
    name="serve",
    help="Run a server for live audio and recordings.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def serve(*, options: Options = DEFAULTS, common: Common = DEFAULT_COMMON) -> int:
    """Run a server for live audio and recordings. Ctrl-C or SIGTERM drain it: open streams finish, then it stops."""
    common.begin()
    if common.json:
        redirect_stderr()
    settings = _settings(options)
    from conure.cli.run_server import run  # noqa: PLC0415  keeps its imports out of --help

    run(settings, _announce)
    return DONE


def _settings(options: Options) -> Settings:
    given = with_current_names(asdict(options))
    models = {name: given.get(name) or options.model for name in ("live_models", "file_models")}
    return load_settings(**given | models)


def _announce(serving: ServerInfo, settings: Settings, seconds: float) -> None:
    """Six lines on stderr: models, device, capacity, addresses, access, start time."""
    from conure.service.bind_policy import access_summary  # noqa: PLC0415  keeps its imports out of --help

    live = ", ".join(model.name for model in serving.models if model.latencies)
    clips = ", ".join(model.name for model in serving.models if model.supports_clips)
    runners = ", ".join(dict.fromkeys(model.runner for model in serving.models))
    capacities = "; ".join(_capacity(model) for model in serving.models if model.latencies)
    lines = (
        f"models  live {live} · recordings {clips}",
        f"device  {settings.device}: {runners}",
        f"plan    streams: {capacities}",
        f"ports   {', '.join(f'{name} {address}' for name, address in serving.addresses.items())}",
        f"access  {access_summary(settings)}",
        f"ready   in {seconds:.1f} s",
    )
    print("\n".join(lines), file=sys.stderr, flush=True)


def _capacity(model: ModelInfo) -> str:
    counts = zip(model.latencies, model.capacity, strict=True)
    return ", ".join(f"{count} at {latency} ms" for latency, count in counts)
