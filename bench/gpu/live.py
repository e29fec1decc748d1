"""Streams at the pace of speech in a whole engine, its Python included, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from bench.audio import speech
from bench.gpu.streams import GOALS, live_runner
from bench.gpu.told import Told
from conure.engine.device_lane import sizes_of
from conure.models.checkpoint import Checkpoint

__all__ = ["host", "paced"]

SECONDS = 6.0


def paced(checkpoint: Checkpoint, device: torch.device, goals: tuple[tuple[int, int], ...] = GOALS) -> Told:
    """Whole engines at their goals, and at half of them, where finals are asked for."""
    columns = ("chunk ms", "streams", "lag p50", "p99 ms", "final p50", "p99 ms", "turn ms", "busy", "feeder late ms")
    told = Told("Streams at the pace of speech, in an engine", columns)
    with told.failures("the engine"):
        from bench.engine_trial import Trial  # noqa: PLC0415  it needs msgspec, which not every machine has
        from conure.engine.device_lane import DeviceLane  # noqa: PLC0415

        runner = live_runner(checkpoint, device)
        for latency, most in goals:
            lane = DeviceLane(runner, most)
            lane.prepare()
            for streams in (most // 2, most):
                with told.failures(f"{streams} streams at {latency} ms"):
                    found = Trial({"live": lane}, [speech(SECONDS)], streams, latency, latency / 1000).run()
                    lag, final = found.lag, found.final
                    cells = [
                        f"{1e3 * value:.0f}" for spread in (lag, final) if spread for value in (spread.p50, spread.p99)
                    ]
                    cells += [f"{1e3 * found.turn:.1f}", f"{found.busy:.0%}", f"{1e3 * found.late:.0f}"]
                    told.row(f"{latency}", f"{streams}", *cells)
            del lane
    return told


def host(checkpoint: Checkpoint) -> Told:
    """What a stream costs Python in a turn: turns whose recording does nothing, and finds no speech and no tokens."""
    told = Told(
        "The host's part of a turn", ("chunk ms", "streams", "us a stream: push", "ready", "fill", "tell", "all")
    )
    with told.failures("the lane"):
        for latency, streams in ((80, 2000), (320, 1000), (1120, 256)):
            found = _host_seconds(checkpoint, latency, streams)
            told.row(f"{latency}", f"{streams}", *(f"{seconds * 1e6 / streams:.1f}" for seconds in found))
    return told


def _host_seconds(checkpoint: Checkpoint, latency: int, streams: int) -> tuple[float, ...]:
    """Of a turn of all streams: pushing, choosing, filling, telling, and all of it."""
    from conure.engine.device_lane import DeviceLane  # noqa: PLC0415
    from conure.engine.messages import StreamOptions  # noqa: PLC0415

    lane = DeviceLane(live_runner(checkpoint, torch.device("cpu"), _nothing), streams)
    for number in range(streams):
        lane.open(number, StreamOptions("live", latency_ms=latency))
    samples, size = speech(latency / 1000 * 16), latency * 16
    taken: list[tuple[float, ...]] = []
    for at in range(0, len(samples), size):
        begin = time.perf_counter()
        for number in range(streams):
            lane.push(number, samples[at : at + size], 0.0)
        pushed = time.perf_counter()
        ready = [work.stream for work in lane.ready()]
        chosen = time.perf_counter()
        most = sizes_of(latency // 80, streams)[-1]
        for first in range(0, len(ready), most):
            lane.run(ready[first : first + most], 0.0)
        lane.settle()
        took, stages = time.perf_counter() - begin, lane.stages.take()
        if ready:
            taken.append((pushed - begin, chosen - pushed, stages["filling"], stages["telling"], took))
    return tuple(sorted(column)[len(column) // 2] for column in zip(*taken[2:], strict=True))


def _nothing(work: Callable[[], None], results: Sequence[torch.Tensor] = ()) -> Callable[[], None]:
    """A recording of no work."""
    return lambda: None
