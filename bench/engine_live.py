"""How many live streams an engine holds, without sockets, sessions and another process: in this one, on its own loop.

    python -m bench.engine_live [--models src/conure/data/tiny] [--random FOLDER] [--runner onnx-int8] [--threads 2]
        [--latencies 160 1120] [--seconds 15] [--first 8] [--packet-ms 80] [--slots 256] [--json FILE]

Streams of real speech are fed by a thread at the pace of speech, their beginnings spread over a chunk. The lag is
counted from when the last sample was due that an answer covers; streams are held where p99 of it is at most a chunk
and 100 ms and all of them finish. Nothing is refused: what costs turns have is learned anew in each trial. --random
keeps a cache-aware model of 0.6B with random weights in FOLDER; what it says means nothing, what it costs does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.engine_trial import Held, Trial
from bench.random_model import random_live_checkpoint
from conure.bench.machine import machine
from conure.bench.sample_speech import voices
from conure.bench.statistics import largest
from conure.cli.tables import table
from conure.engine.messages import (
    Samples,
)
from conure.engine.plan import Plan
from conure.engine.startup import Lanes, build_lanes
from conure.models import conure_file

REPOSITORY = Path(__file__).parents[1]
DATA, TINY = REPOSITORY / "tests" / "data", REPOSITORY / "src" / "conure" / "data" / "tiny"
VOICES = 4


def main() -> None:
    options = _parser().parse_args()
    models = [str(model) for model in options.models]
    if options.random:
        if not options.random.exists():
            conure_file.save(random_live_checkpoint(24), options.random)
        models.append(str(options.random))
    said = [np.frombuffer(pcm, "<i2").astype(np.float32) / 32768 for pcm in voices(DATA, options.seconds, VOICES)]
    found = {}
    for model in models:
        plan = Plan(
            live=(model,), runner=options.runner, threads=options.threads, slots=options.slots, cache=options.cache
        )
        lanes = build_lanes(plan)
        for latency in options.latencies:
            found[lanes.cards[0].name, lanes.cards[0].runner, latency] = _search(lanes, said, latency, options)
    print(f"{machine()['processor']}, {machine()['cores']} cores")
    print(_table(found), end="")
    if options.json:
        cases = [{"model": key, "trials": [asdict(trial) for trial in tried]} for key, tried in found.items()]
        options.json.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="*", default=[TINY])
    parser.add_argument("--random", type=Path, help="where a random model of 0.6B is, or is to be")
    parser.add_argument("--runner", default="auto", choices=["auto", "torch", "onnx-int8", "onnx-fp32"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--latencies", type=int, nargs="*", default=[160, 1120])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--first", type=int, default=8, help="streams to begin with")
    parser.add_argument("--packet-ms", type=int, default=80)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--cache", type=Path, default=Path("build/bench/cache"))
    parser.add_argument("--json", type=Path)
    return parser


def _search(lanes: Lanes, said: Sequence[Samples], latency: int, options: argparse.Namespace) -> list[Held]:
    tried: list[Held] = []

    def holds(streams: int) -> bool:
        tried.append(Trial(lanes.live, said, streams, latency, options.packet_ms / 1000).run())
        print(f"  {streams} at {latency} ms: {tried[-1]}", flush=True)
        return tried[-1].is_in_time

    largest(holds, options.first, options.slots)
    return tried


def _table(found: dict[tuple[str, str, int], list[Held]]) -> str:
    rows = [("model", "runner", "ms", "streams", "lag p50", "p99", "end p50", "p99", "rows", "turn ms", "busy")]
    for key, tried in found.items():
        held = [trial for trial in tried if trial.is_in_time]
        best = max(held or tried, key=lambda trial: trial.streams if held else -trial.streams)
        times = [
            f"{value * 1000:.0f}" if spread else "-"
            for spread in (best.lag, best.final)
            for value in ((spread.p50, spread.p99) if spread else (0.0, 0.0))
        ]
        turns = (f"{best.rows:.1f}", f"{best.turn * 1000:.1f}", f"{best.busy:.0%}")
        rows.append((*map(str, key), f"{best.streams}" if held else "none", *times, *turns))
    return table(rows)


if __name__ == "__main__":
    main()
