"""Streams at the pace of speech in a whole engine, its Python included, in one process."""

from __future__ import annotations

import torch

from bench.audio import speech
from bench.gpu.streams import GOALS, live_runner
from bench.gpu.told import Told
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


def host(checkpoint: Checkpoint, device: torch.device) -> Told:
    """What a stream costs Python in a turn: a small network, so that the device hardly counts."""
    told = Told("The host's part of a turn", ("chunk ms", "streams", "us a stream: filling", "telling", "whole turn"))
    with told.failures("the lane"):
        import time  # noqa: PLC0415

        from conure.engine.device_lane import DeviceLane  # noqa: PLC0415
        from conure.engine.messages import StreamOptions  # noqa: PLC0415

        samples = speech(SECONDS)
        for latency, streams in ((80, 512), (1120, 256)):
            lane = DeviceLane(live_runner(checkpoint, device), streams)
            for number in range(streams):
                lane.open(number, StreamOptions("live", latency_ms=latency))
            size, stages = latency * 16, {"filling": 0.0, "telling": 0.0}
            begin, turns = 0.0, 0
            for at in range(0, len(samples) - size, size):
                for number in range(streams):
                    lane.push(number, samples[at : at + size], 0.0)
                if turns == 1:  # the first one makes what all use
                    lane.stages.take()
                    begin = time.perf_counter()
                ready = [work.stream for work in lane.ready()]
                if ready:
                    lane.run(ready, 0.0)
                    turns += 1
            lane.settle()
            took, stages = time.perf_counter() - begin, lane.stages.take()
            each = 1e6 / streams / max(turns - 1, 1)
            cells = f"{stages['filling'] * each:.1f}", f"{stages['telling'] * each:.1f}", f"{took * each:.1f}"
            told.row(f"{latency}", f"{streams}", *cells)
    return told
