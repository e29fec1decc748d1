"""`conure listen`: the microphone to words, here, without a server."""

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

from conure.cli.captions import Captions, StreamForm
from conure.cli.microphone import microphone
from conure.cli.reporter import DONE, PLAIN, Common, tell
from conure.cli.setting_flags import knob
from conure.errors import ConureError, EngineFailed
from conure.settings import Settings, load_settings
from conure.types import RunnerChoice

if TYPE_CHECKING:
    from conure.client import Event as Heard
    from conure.service.live_service import LiveStream

__all__ = ["Options", "app", "listen"]

EXAMPLES = """\
Examples:
  conure listen
  conure listen --model tiny --file talk.mp3 --pace 1
"""

RATE = 16_000
PACKET = 320
"""Samples that are given at once, 20 ms."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    model: Annotated[str | None, knob("live_models")] = None
    device: Annotated[str | None, knob("device")] = None
    runner: Annotated[RunnerChoice | None, knob("runner")] = None
    language: Annotated[str | None, knob("language")] = None

    latency: Annotated[int | None, Parameter(validator=validators.Number(gt=0))] = None
    """Milliseconds of audio that the model waits for."""

    file: Path | None = None
    """A recording instead of the microphone."""

    pace: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 1.0
    """Times as fast as the recording was spoken; 0 is as fast as it goes."""

    microphone: str | None = None
    """Name or number of a microphone that is not the system's own choice."""

    form: Annotated[StreamForm, Parameter(name=["--format", "-f"])] = "text"
    """Text, or a line of JSON per event."""


DEFAULTS = Options()

app = App(
    name="listen",
    help="The microphone to words, as they are spoken.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def listen(*, options: Options = DEFAULTS, common: Common = PLAIN) -> int:
    """The microphone to words, as they are spoken; Ctrl-C ends it."""
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
    from conure.audio.formats import AudioFormat  # noqa: PLC0415  --help shall not wait for these
    from conure.engine.client import EngineClient  # noqa: PLC0415
    from conure.engine.ipc.transport import ThreadTransport  # noqa: PLC0415
    from conure.engine.plan import Plan  # noqa: PLC0415
    from conure.service.live_service import LiveService, StreamRequest  # noqa: PLC0415
    from conure.service.model_directory import ModelDirectory, live_model_name  # noqa: PLC0415
    from conure.service.tokenizer_cache import TokenizerCache  # noqa: PLC0415

    name = live_model_name(settings.live_models)
    plan = Plan((name,), device=settings.device, runner=settings.runner, threads=settings.threads, cache=settings.cache)
    handle = EngineClient(ThreadTransport(plan))
    await handle.start()
    try:
        live = LiveService(handle, ModelDirectory(handle, plan.live, ()), TokenizerCache())
        wanted = StreamRequest(latency_ms=options.latency, language=settings.language)
        stream = await live.open_stream(wanted, AudioFormat("f32", RATE))
        tell(f"listening with {stream.options.model.name} at {stream.options.latency_ms} ms")
        reader = live.attach(stream)
        async with asyncio.TaskGroup() as tasks:
            giving = tasks.create_task(_give(stream, reader, options))
            _on_interrupt(giving.cancel)
            await _show(stream, reader, options.form)
            giving.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await handle.stop()


def _on_interrupt(end: Callable[[], object]) -> None:
    """Ctrl-C ends what is said, not what is heard; once more and it ends all."""

    def interrupt() -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        end()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)


async def _give(stream: LiveStream, reader: int, options: Options) -> None:
    """Until the recording ends, or Ctrl-C: what was said until then is heard."""
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

    begun, given = time.monotonic(), 0
    with open_audio(options.file, rate=RATE) as reader:
        read: Iterator[Any] = reader.blocks(1.0)
        while (second := await asyncio.to_thread(next, read, None)) is not None:
            for begin in range(0, second.shape[1], PACKET):
                packet = second[0, begin : begin + PACKET]
                given += len(packet)
                if options.pace:
                    await asyncio.sleep(max(0.0, begun + given / RATE / options.pace - time.monotonic()))
                yield packet


async def _show(stream: LiveStream, reader: int, form: StreamForm) -> None:
    from conure.client import protocol  # noqa: PLC0415
    from conure.protocols.native.events import render_event  # noqa: PLC0415
    from conure.service.events import TERMINAL_EVENTS, Failed  # noqa: PLC0415

    captions, told, config = Captions(form), 0, protocol.Config()
    try:
        while True:
            for seq, event in await stream.event_log.read_after(told, reader):
                told = seq
                if isinstance(event, Failed):
                    raise _error(event)
                if rendered := render_event(seq, event, config, stream.problems):
                    captions.show(cast("Heard", rendered), None)
                if isinstance(event, TERMINAL_EVENTS):
                    return
    finally:
        captions.close()


def _error(event: Any) -> ConureError:
    return EngineFailed(event.message, event.hint)
