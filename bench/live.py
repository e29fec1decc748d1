"""Live streams over sockets: lag, cost, and the number of streams that a server sustains.

    python -m bench.live [--url http://127.0.0.1:8000 | --live MODEL [--clips MODEL] [--threads 2] [--processes 2]]
        [--streams 40] [--latency 160] [--seconds 60] [--packet-ms 20] [--data FOLDER] [--search] [--uploads 3]
        [--price 2.50] [--json FILE]

Clients run in processes of their own and send audio in real time. Each transcript is compared with that of a single
stream. The lag of a partial is the time since its last covered sample was sent. With --uploads everything is measured
again while so many clients send recordings continuously. Without --url a server is started. Uses conure.bench, as
`conure bench live` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from conure.bench.machine import machine
from conure.bench.report import trial_line, trials_as_dict
from conure.bench.sample_speech import read_voices
from conure.bench.server import NO_CLIPS, Server, connect_to_server, start_server
from conure.bench.stream_bench import StreamBench, measure_streams
from conure.bench.trial import Trial
from conure.bench.upload_load import run_uploads
from conure.cli.bench_live import render

UPLOAD_SECONDS = 60.0
DATA = Path(__file__).parents[1] / "tests" / "data"


def main() -> None:
    options = _parser().parse_args()
    bench = StreamBench(
        audio=options.data,
        streams=options.streams,
        latency_ms=options.latency,
        seconds=options.seconds,
        model=options.model,
        packet_ms=options.packet_ms,
        search=options.search,
    )
    with server_of(options) as server:
        trials = measure_streams(bench, server, _print_trial)
        if options.uploads:
            (pcm,) = read_voices(options.data, UPLOAD_SECONDS, 1)
            with run_uploads(server, pcm, options.uploads) as uploads:
                trials += measure_streams(bench, server, _print_trial)
            print(f"with {uploads.seconds:.0f} s of recordings at the same time; errors: {uploads.errors or 'none'}")
    print(render(trials, options.price), end="")
    facts = {"machine": machine(), "server": options.url or options.live, "seconds": options.seconds}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts | trials_as_dict(trials, options.price), indent=1) + "\n")


def _print_trial(trial: Trial) -> None:
    print(trial_line(trial), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server(parser)
    parser.add_argument("--streams", type=int, default=40, help="with --search, the first number tried")
    parser.add_argument("--latency", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--packet-ms", type=int, default=20)
    parser.add_argument("--model", help="model of the server; by default its first")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of wav and flac files, or one file")
    parser.add_argument("--search", action="store_true", help="search the largest sustained number of streams")
    parser.add_argument("--uploads", type=int, default=0, help="clients that send recordings in a second measurement")
    parser.add_argument("--price", type=float, help="of the machine, in dollars per hour")
    parser.add_argument("--json", type=Path, default=Path("build/bench/live.json"))
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Options that `server_of` reads."""
    parser.add_argument("--url", help="of a running server")
    parser.add_argument("--live", default="tiny", help="live model of the server to start")
    parser.add_argument("--clips", default=NO_CLIPS, help="its model for recordings; none by default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", type=int, help="number of server processes")
    parser.add_argument("--resume-seconds", type=float, default=30)


def server_of(options: argparse.Namespace) -> AbstractContextManager[Server]:
    if options.url:
        return nullcontext(connect_to_server(options.url))
    flags = ["--live-models", options.live, "--file-models", options.clips]
    flags += ["--resume-seconds", str(options.resume_seconds)]
    for name in ("threads", "processes"):
        if value := getattr(options, name):
            flags += [f"--{name}", str(value)]
    return start_server(flags)


if __name__ == "__main__":
    main()
