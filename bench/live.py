"""Live streams through real sockets: how late their words are, what they cost, and how many a server holds.

    python -m bench.live [--url http://127.0.0.1:8000 | --live MODEL [--clips MODEL] [--threads 2] [--processes 2]]
        [--streams 40] [--latency 160] [--seconds 60] [--packet-ms 20] [--data FOLDER] [--search] [--uploads 3]
        [--price 2.50] [--json FILE]

Clients run in processes of their own and speak at the pace of a person; every transcript is compared with that of the
same audio alone. The lag of a partial is counted from when the last sample was sent that it covers. With --uploads all
is measured once more while so many clients send recordings, one after the other. Without --url a server is started and
stopped. See conure.bench, which `conure bench live` uses, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from conure.bench.machine import machine
from conure.bench.report import as_dict, line
from conure.bench.sample_speech import voices
from conure.bench.server import NO_CLIPS, Server, start_server, the_server_at
from conure.bench.stream_bench import StreamBench, measure
from conure.bench.trial import Trial
from conure.bench.upload_load import uploading
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
        trials = measure(bench, server, _tell)
        if options.uploads:
            (pcm,) = voices(options.data, UPLOAD_SECONDS, 1)
            with uploading(server, pcm, options.uploads) as uploads:
                trials += measure(bench, server, _tell)
            print(f"beside them {uploads.seconds:.0f} s of recordings; errors: {uploads.errors or 'none'}")
    print(render(trials, options.price), end="")
    facts = {"machine": machine(), "server": options.url or options.live, "seconds": options.seconds}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts | as_dict(trials, options.price), indent=1) + "\n")


def _tell(trial: Trial) -> None:
    print(line(trial), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server(parser)
    parser.add_argument("--streams", type=int, default=40, help="with --search: to begin with")
    parser.add_argument("--latency", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--packet-ms", type=int, default=20)
    parser.add_argument("--model", help="one of the server's, where it has several")
    parser.add_argument("--data", type=Path, default=DATA, help="wav and flac files, at any depth, or one")
    parser.add_argument("--search", action="store_true", help="the largest number that is held")
    parser.add_argument("--uploads", type=int, default=0, help="clients that send recordings, in a second measurement")
    parser.add_argument("--price", type=float, help="of the machine, in dollars an hour")
    parser.add_argument("--json", type=Path, default=Path("build/bench/live.json"))
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Options that `server_of` reads."""
    parser.add_argument("--url", help="a server that runs")
    parser.add_argument("--live", default="tiny", help="model of a server that is started")
    parser.add_argument("--clips", default=NO_CLIPS, help="its model for recordings; none where it is left out")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--processes", type=int, help="that hold connections")
    parser.add_argument("--resume-seconds", type=float, default=30)


def server_of(options: argparse.Namespace) -> AbstractContextManager[Server]:
    if options.url:
        return nullcontext(the_server_at(options.url))
    flags = ["--live-models", options.live, "--file-models", options.clips]
    flags += ["--resume-seconds", str(options.resume_seconds)]
    for name in ("threads", "processes"):
        if value := getattr(options, name):
            flags += [f"--{name}", str(value)]
    return start_server(flags)


if __name__ == "__main__":
    main()
