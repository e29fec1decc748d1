"""How many live streams an engine sustains in this process, without sockets, sessions and another process.

    python -m bench.engine_live [--models src/conure/data/tiny] [--random FOLDER] [--runner onnx-int8] [--threads 2]
        [--latencies 160 1120] [--seconds 15] [--first 8] [--packet-ms 80] [--slots 256] [--json FILE]

A thread feeds streams of real speech in real time, with starts spread over a chunk. The lag is the time since the last
covered sample was due. Streams are sustained if the p99 lag is at most a chunk plus 100 ms and all of them finish. No
stream is rejected: step costs are measured anew in each trial. --random uses a cache-aware model of 0.6B with random
weights, kept in FOLDER: its words are meaningless, its speed is real.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.engine_trial import Trial, TrialResult
from bench.random_model import random_live_checkpoint
from conure.bench.machine import machine
from conure.bench.sample_speech import read_voices
from conure.bench.statistics import find_largest
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
    voices = [
        np.frombuffer(pcm, "<i2").astype(np.float32) / 32768 for pcm in read_voices(DATA, options.seconds, VOICES)
    ]
    results = {}
    for model in models:
        plan = Plan(
            live_models=(model,),
            runner=options.runner,
            threads=options.threads,
            max_streams=options.slots,
            cache_folder=options.cache,
        )
        lanes = build_lanes(plan)
        for latency in options.latencies:
            results[lanes.model_infos[0].name, lanes.model_infos[0].runner, latency] = _search(
                lanes, voices, latency, options
            )
    print(f"{machine()['processor']}, {machine()['cores']} cores")
    print(_table(results), end="")
    if options.json:
        cases = [{"model": key, "trials": [asdict(trial) for trial in trials]} for key, trials in results.items()]
        options.json.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="*", default=[TINY])
    parser.add_argument("--random", type=Path, help="folder for a random model of 0.6B")
    parser.add_argument("--runner", default="auto", choices=["auto", "torch", "onnx-int8", "onnx-fp32"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--latencies", type=int, nargs="*", default=[160, 1120])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--first", type=int, default=8, help="first number of streams to try")
    parser.add_argument("--packet-ms", type=int, default=80)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--cache", type=Path, default=Path("build/bench/cache"))
    parser.add_argument("--json", type=Path)
    return parser


def _search(lanes: Lanes, voices: Sequence[Samples], latency: int, options: argparse.Namespace) -> list[TrialResult]:
    trials: list[TrialResult] = []

    def is_sustained(streams: int) -> bool:
        trials.append(Trial(lanes.live, voices, streams, latency, options.packet_ms / 1000).run())
        print(f"  {streams} at {latency} ms: {trials[-1]}", flush=True)
        return trials[-1].is_in_time

    find_largest(is_sustained, options.first, options.slots)
    return trials


def _table(results: dict[tuple[str, str, int], list[TrialResult]]) -> str:
    rows = [("model", "runner", "ms", "streams", "lag p50", "p99", "end p50", "p99", "rows", "step ms", "busy")]
    for key, trials in results.items():
        sustained = [trial for trial in trials if trial.is_in_time]
        best = max(sustained or trials, key=lambda trial: trial.streams if sustained else -trial.streams)
        times = [
            f"{value * 1000:.0f}" if spread else "-"
            for spread in (best.lag, best.final)
            for value in ((spread.p50, spread.p99) if spread else (0.0, 0.0))
        ]
        steps = (f"{best.rows:.1f}", f"{best.step * 1000:.1f}", f"{best.busy:.0%}")
        rows.append((*map(str, key), f"{best.streams}" if sustained else "none", *times, *steps))
    return table(rows)


if __name__ == "__main__":
    main()
