"""Clips to tokens, end to end, ours and others side by side in one run.

    python -m bench.clips --models FOLDER --environments FOLDER [--engines NAME ...] [--cases NAME ...] [--rounds 3]

Every engine gets the same random weights of the real size (see `random_model`, `make_models`), the same audio and the
same threads. Engines take turns, A B C A B C, each in a process of its own and none beside another; an engine's number
is the best of its repeats in all rounds; long cases run in the first round alone. The machine's own speed is measured
before and after each turn. What is measured joins what FOLDER/clips.json already
holds (take that file away on another machine or after a change); the table goes into docs/performance.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.audio import speech, write_wav
from bench.engines import ENGINES, Engine
from bench.report import write_report
from bench.yardstick import int8_rate
from conure.bench.machine import machine

HERE = Path(__file__).parent
CASES = {"30 s": (30, 1), "8 x 30 s": (30, 8), "10 min": (600, 1), "8 x 10 min": (600, 8), "3 h": (3 * 3600, 1)}
"""Seconds and clips of a batch. Clips of a batch begin at different places of the recording."""
DEFAULT_CASES = ("30 s", "8 x 30 s", "10 min", "8 x 10 min")
SHORT_SECONDS, SHORT_REPEATS = 300, 3
"""A case of up to so much audio runs in every round; one of a fifth of it so often a round."""


def main() -> None:
    options = _parser().parse_args()
    engines = [engine for engine in ENGINES if not options.engines or engine.name in options.engines]
    cases = [_case(name, options.models / "audio") for name in options.cases]
    path = options.models / "clips.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"engines": {}}
    results |= {"machine": machine(), "threads": options.threads, "model": options.models.name}
    for number in range(options.rounds):
        for engine in engines:
            print(f"round {number + 1}: {engine.name}", file=sys.stderr, flush=True)
            before = int8_rate(options.threads)
            told = run(engine, cases if number == 0 else [case for case in cases if case["short"]], options)
            told.append({"event": "machine", "int8_rate": [before, int8_rate(options.threads)]})
            for line in told:
                print("  ", json.dumps(line), file=sys.stderr, flush=True)
            results["engines"].setdefault(engine.name, []).append(told)
            path.write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, options.report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="what make_models wrote")
    parser.add_argument("--environments", type=Path, required=True, help="what environments/setup.sh wrote")
    parser.add_argument("--engines", nargs="*", help="; ".join(engine.name for engine in ENGINES))
    parser.add_argument("--cases", nargs="*", default=DEFAULT_CASES, choices=CASES, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-gb", type=float, default=20, help="an engine that asks for more fails")
    parser.add_argument("--minutes", type=float, default=20, help="an engine's time for a round")
    parser.add_argument("--report", type=Path, default=HERE.parent / "docs" / "performance.md")
    return parser


def _case(name: str, folder: Path) -> dict[str, Any]:
    seconds, clips = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{seconds}-{index}.wav" for index in range(clips)]
    missing = [(index, path) for index, path in enumerate(files) if not path.exists()]
    if missing:
        samples = speech(seconds + clips)
        for index, path in missing:
            write_wav(path, samples[index * 16_000 : (index + seconds) * 16_000])
    short = seconds * clips <= SHORT_SECONDS
    repeats = SHORT_REPEATS if seconds * clips <= SHORT_SECONDS / 5 else 1
    return {"name": name, "files": [str(path) for path in files], "repeats": repeats, "short": short}


def run(engine: Engine, cases: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the worker told, line by line."""
    python = sys.executable
    if engine.environment is not None:
        python = str(options.environments / engine.environment / "bin" / "python")
        if not Path(python).exists():
            return [{"event": "failed", "error": f"no environment {engine.environment}"}]
    task = {"model": str(options.models / engine.model), "threads": options.threads, "cases": cases, **engine.options}
    task["cache"] = str(options.models / "cache")
    command = [python, str(HERE / "peers" / f"{engine.worker}.py"), json.dumps(task)]
    limit = functools.partial(_limit_memory, int(options.memory_gb * 2**30))
    surroundings = os.environ | {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=surroundings,
            preexec_fn=limit,
            timeout=options.minutes * 60,
        )
        out, fate = done.stdout, f"exit code {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        out, fate = (late.stdout or b"").decode(), f"stopped after {time.perf_counter() - begin:.0f} s"
    told = [json.loads(line) for line in out.splitlines()]
    return [*told, {"event": "failed", "error": fate}] if fate else told


def _limit_memory(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
