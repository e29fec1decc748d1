"""Clips to tokens, end to end: Conure and other projects in one run.

    python -m bench.clips --models FOLDER --environments FOLDER [--engines NAME ...] [--cases NAME ...] [--rounds 3]

All engines get the same random weights of the real size (see `random_model`, `make_models`), the same audio and the
same number of threads. They run alternately, A B C A B C, one at a time and each in its own process. The best of all
repeats counts; long cases run in the first round only. The speed of the machine is measured before and after each run.
Results are added to FOLDER/clips.json (delete it on another machine or after a change); the table goes into
docs/performance.md.
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
from bench.int8_speed import int8_rate
from bench.report import write_report
from conure.bench.machine import machine

HERE = Path(__file__).parent
CASES = {"30 s": (30, 1), "8 x 30 s": (30, 8), "10 min": (600, 1), "8 x 10 min": (600, 8), "3 h": (3 * 3600, 1)}
"""Seconds and number of clips in a batch. Clips start at different places of the recording."""
DEFAULT_CASES = ("30 s", "8 x 30 s", "10 min", "8 x 10 min")
SHORT_SECONDS, SHORT_REPEATS = 300, 3
"""Cases of up to SHORT_SECONDS run in every round; those of up to a fifth of it repeat in each round."""


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
            lines = run(engine, cases if number == 0 else [case for case in cases if case["short"]], options)
            lines.append({"event": "machine", "int8_rate": [before, int8_rate(options.threads)]})
            for line in lines:
                print("  ", json.dumps(line), file=sys.stderr, flush=True)
            results["engines"].setdefault(engine.name, []).append(lines)
            path.write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, options.report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="output folder of make_models")
    parser.add_argument("--environments", type=Path, required=True, help="output folder of environments/setup.sh")
    parser.add_argument("--engines", nargs="*", help="; ".join(engine.name for engine in ENGINES))
    parser.add_argument("--cases", nargs="*", default=DEFAULT_CASES, choices=CASES, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-gb", type=float, default=20, help="memory limit of an engine")
    parser.add_argument("--minutes", type=float, default=20, help="time limit of an engine per round")
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
    """The lines of the worker's output."""
    python = sys.executable
    if engine.environment is not None:
        python = str(options.environments / engine.environment / "bin" / "python")
        if not Path(python).exists():
            return [{"event": "failed", "error": f"no environment {engine.environment}"}]
    task = {"model": str(options.models / engine.model), "threads": options.threads, "cases": cases, **engine.options}
    task["cache"] = str(options.models / "cache")
    command = [python, str(HERE / "peers" / f"{engine.worker}.py"), json.dumps(task)]
    limit = functools.partial(_limit_memory, int(options.memory_gb * 2**30))
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    started_at = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            preexec_fn=limit,
            timeout=options.minutes * 60,
        )
        out, error = done.stdout, f"exit code {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as timeout:
        out, error = (timeout.stdout or b"").decode(), f"stopped after {time.perf_counter() - started_at:.0f} s"
    lines = [json.loads(line) for line in out.splitlines()]
    return [*lines, {"event": "failed", "error": error}] if error else lines


def _limit_memory(limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    main()
