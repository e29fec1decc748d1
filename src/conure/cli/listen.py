"""`conure listen`: transcribes the microphone in this process, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from cyclopts import App, Parameter, validators

from conure.cli.captions import Captions, StreamFormat
from conure.cli.microphone import microphone
from conure.cli.reporter import DEFAULT_COMMON, DONE, Common, print_stderr
from conure.cli.setting_flags import setting_flag
from conure.constants import SAMPLE_RATE
from conure.errors import ConureError, EngineFailed
from conure.settings import Settings, load_settings
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.client import Event as ClientEvent
    from conure.service.live_service import LiveStream

__all__ = ["Options", "app", "listen"]

EXAMPLES = """\
Examples:
  conure listen
  conure listen --model tiny --file talk.mp3 --pace 1
"""

PACKET_SAMPLES = 320
"""20 ms."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    model: Annotated[str | None, setting_flag("live_models")] = None
    device: Annotated[str | None, setting_flag("device")] = None
    runner: Annotated[RunnerChoice | None, setting_flag("runner")] = None
    language: Annotated[str | None, setting_flag("language")] = None

    latency: Annotated[int | None, Parameter(validator=validators.Number(gt=0))] = None
    """Latency of the model, in milliseconds."""

    file: Path | None = None
    """A recording to use instead of the microphone."""

    pace: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    """Speed of the recording, as a multiple of real time; 0 is as fast as possible."""

    microphone: str | None = None
    """Name or number of the microphone; by default the system's."""

    output_format: Annotated[StreamFormat, Parameter(name=["--format", "-f"])] = "text"
    """Text, or one line of JSON per event."""


DEFAULTS = Options()

app = App(
    name="listen",
    help="Transcribe the microphone live.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def listen(*, options: Options = DEFAULTS, common: Common = DEFAULT_COMMON) -> int:
    """Transcribe the microphone live, until Ctrl-C."""
    common.begin()
    settings = load_settings(
        live_models=options.model, device=options.device, runner=options.runner, language=options.language
    )
    from conure.cli.downloads import ensure_on_disk  # noqa: PLC0415  it loads the hub's library
    from conure.service.model_directory import live_model_name  # noqa: PLC0415

    ensure_on_disk(live_model_name(settings.live_models))
    asyncio.run(_listen(options, settings))
    return DONE


async def _listen(options: Options, settings: Settings) -> None:
    from conure.audio.formats import AudioFormat  # noqa: PLC0415  keeps slow imports out of --help
    from conure.engine.client import EngineClient  # noqa: PLC0415
    from conure.engine.ipc.transport import ThreadTransport  # noqa: PLC0415
    from conure.engine.plan import Plan  # noqa: PLC0415
    from conure.service.live_service import LiveService, StreamRequest  # noqa: PLC0415
    from conure.service.model_directory import ModelDirectory, live_model_name  # noqa: PLC0415
    from conure.service.tokenizer_cache import TokenizerCache  # noqa: PLC0415

    name = live_model_name(settings.live_models)
    plan = Plan(
        (name,), device=settings.device, runner=settings.runner, threads=settings.threads, cache_folder=settings.cache
    )
    engine = EngineClient(ThreadTransport(plan))
    await engine.start()
    try:
        live = LiveService(engine, ModelDirectory(engine, plan.live_models, ()), TokenizerCache())
        request = StreamRequest(latency_ms=options.latency, language=settings.language)
        stream = await live.open_stream(request, AudioFormat("f32", SAMPLE_RATE))
        print_stderr(f"listening with {stream.options.model.name} at {stream.options.latency_ms} ms")
        reader = live.attach(stream)
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(_send_audio(stream, reader, options))
            _on_interrupt(sender.cancel)
            await _show(stream, reader, options.output_format)
            sender.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await engine.stop()


def _on_interrupt(stop_sending: Callable[[], object]) -> None:
    """The first Ctrl-C stops the audio, and the last final is still printed; a second one ends the command."""

    def interrupt() -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        stop_sending()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)


async def _send_audio(stream: LiveStream, reader: int, options: Options) -> None:
    """Sends audio until the recording ends or the task is cancelled, then closes the stream."""
    try:
        async with contextlib.aclosing(_packets(options)) as packets:
            async for packet in packets:
                await stream.push_audio(np.asarray(packet, "<f4").tobytes(), reader)
    except asyncio.CancelledError:
        if stream.has_ended:
            raise
    await stream.close(reader)


async def _packets(options: Options) -> AsyncGenerator[Any]:
    if options.file is None:
        async with contextlib.aclosing(microphone(options.microphone)) as blocks:
            async for block in blocks:
                yield block
        return
    from conure.audio.files import open_audio  # noqa: PLC0415

    started_at, samples_read = time.monotonic(), 0
    with open_audio(options.file, rate=SAMPLE_RATE) as reader:
        seconds: Iterator[Any] = reader.blocks(1.0)
        while (second := await asyncio.to_thread(next, seconds, None)) is not None:
            for start in range(0, second.shape[1], PACKET_SAMPLES):
                packet = second[0, start : start + PACKET_SAMPLES]
                samples_read += len(packet)
                if options.pace:
                    await asyncio.sleep(
                        max(0.0, started_at + samples_read / SAMPLE_RATE / options.pace - time.monotonic())
                    )
                yield packet


async def _show(stream: LiveStream, reader: int, output_format: StreamFormat) -> None:
    from conure.client import protocol  # noqa: PLC0415
    from conure.protocols.native.events import render_event  # noqa: PLC0415
    from conure.service.events import TERMINAL_EVENTS, Failed  # noqa: PLC0415

    captions, last_seq, config = Captions(output_format), 0, protocol.Config()
    try:
        while True:
            for seq, event in await stream.event_log.read_after(last_seq, reader):
                last_seq = seq
                if isinstance(event, Failed):
                    raise _error(event)
                if rendered := render_event(seq, event, config, stream.problems):
                    captions.show(cast("ClientEvent", rendered), None)
                if isinstance(event, TERMINAL_EVENTS):
                    return
    finally:
        captions.close()


def _error(event: Any) -> ConureError:
    return EngineFailed(event.message, event.hint)
