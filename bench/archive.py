"""Archives: how fast recordings are read and cut, and whole ones against one recording after the other.

    python -m bench.archive --data FOLDER [--model tiny] [--device auto] [--workers N ...] [--rounds 2]

1. Stages, by kind of file, in this process: seconds of audio a second of processor time of decoding (mixed and
   resampled), of the speech detector, and of cutting by what it says.
2. Reading, decoding, detecting and cutting in so many processes, for a network that takes no time.
3. The same files through `Recognizer.transcribe_many`, and one after the other through `transcribe`, in turns; the
   best of the rounds. The words have to be the same.

Beside what the clock says there is what the processors say, of this process and of those that read: seconds of audio
a second of one core, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio
from conure.bench.machine import machine
from conure.cli.inputs import MEDIA_SUFFIXES
from conure.cli.tables import table
from conure.service.bulk_transcription import BulkTranscription
from conure.service.recognizer import Recognizer, load
from conure.types import Transcript, Word
from conure.vad.segmentation import SegmentationSettings, Segmenter
from conure.vad.silero import load_silero

WORKERS = (1, 2, 4, 8, 15)
BATCH_SECONDS = 240.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of recordings, searched at any depth")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, nargs="*", help=f"default: of {WORKERS} those that have a core")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    files = sorted(path for path in options.data.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES)
    facts = machine()
    print(
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load'][0]:.1f}; {len(files)} files\n", flush=True
    )
    print(table(stages(files)), flush=True)
    counts = options.workers or [count for count in WORKERS if count <= facts["cores"]]
    print(table(reading(files, counts, options.rounds)), flush=True)
    print(table(whole(files, load(options.model, device=options.device), counts, options.rounds)), flush=True)


def stages(files: Sequence[Path]) -> list[Sequence[str]]:
    """Seconds of audio a second of processor time, by suffix."""
    kinds = defaultdict(list)
    for path in files:
        kinds[path.suffix.lower()].append(path)
    rows: list[Sequence[str]] = [("kind", "audio", "decode", "detect", "cut", "all", "the detector's share")]
    load_silero()
    for kind, paths in sorted(kinds.items()):
        seconds, spent = 0.0, np.zeros(3)
        for path in paths:
            audio, times = stages_of(path)
            seconds, spent = seconds + audio, spent + times
        speeds = [f"{seconds / part:.0f} x" for part in (*spent, spent.sum())]
        rows.append((kind, f"{seconds:.0f} s", *speeds, f"{spent[1] / spent.sum():.0%}"))
    return rows


def stages_of(path: Path) -> tuple[float, np.ndarray]:
    """Seconds of audio; seconds of processor time of each stage [3]."""
    begin = time.process_time()
    with open_audio(path) as reader:
        blocks = [block[0] for block in reader.blocks()]
    decoded = time.process_time()
    stream = load_silero().open_stream()
    heard = [*(stream.push(block) for block in blocks), stream.finish()]
    detected = time.process_time()
    cutter = Segmenter(SegmentationSettings())
    for block, told in zip([*blocks, np.zeros(0, np.float32)], heard, strict=True):
        cutter.push(block, told)
    cutter.finish()
    return reader.seconds_read, np.diff([begin, decoded, detected, time.process_time()])


def reading(files: Sequence[Path], counts: Sequence[int], rounds: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("workers", "read and cut a second", "a second of one core")]
    for count in counts:
        clock, core = best_of(speeds_of(lambda count=count: read_only(files, count)) for _ in range(rounds))
        rows.append((f"{count}", f"{clock:.0f} s", f"{core:.0f} s"))
    return rows


def read_only(files: Sequence[Path], workers: int) -> Iterable[float]:
    """Seconds of each file."""

    def transcribe(clips: Sequence[np.ndarray]) -> list[list[Word]]:
        return [[] for _ in clips]

    cut = SegmentationSettings()
    archive = BulkTranscription(
        files, transcribe, lambda words, _: words, segmentation=cut, batch_seconds=BATCH_SECONDS, workers=workers
    )
    return [recording.seconds for recording in archive.results()]


Speeds = tuple[float, float]
"""Seconds of audio a second, and a second of one core."""


def speeds_of(make: Callable[[], Iterable[float]]) -> Speeds:
    begin, spent = time.perf_counter(), processor_seconds()
    seconds = sum(make())
    return seconds / (time.perf_counter() - begin), seconds / (processor_seconds() - spent)


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def best_of(measured: Iterable[Speeds]) -> Speeds:
    clock, core = zip(*measured, strict=True)
    return max(clock), max(core)


def whole(files: Sequence[Path], recognizer: Recognizer, counts: Sequence[int], rounds: int) -> list[Sequence[str]]:
    ways: dict[str, Callable[[], Iterable[Transcript | Exception]]] = {
        "one after the other": lambda: map(recognizer.transcribe, files),
    }
    for count in counts:
        ways[f"together, workers {count}"] = lambda count=count: recognizer.transcribe_many(files, workers=count)
    measured, texts = defaultdict(list), defaultdict(set)
    for _ in range(rounds):
        for way, transcribe in ways.items():
            heard: list[Transcript] = []
            measured[way].append(speeds_of(lambda t=transcribe, h=heard: seconds_of(t(), h)))
            texts[way].add(tuple(one.text for one in heard))
    (alone,) = texts["one after the other"]
    rows: list[Sequence[str]] = [("", "transcribed a second", "", "a second of one core", "same words")]
    first, _ = best_of(measured["one after the other"])
    for way, speeds in measured.items():
        clock, core = best_of(speeds)
        same = "yes" if texts[way] == {alone} else "no"
        rows.append((way, f"{clock:.0f} s", f"{clock / first:.2f} x", f"{core:.0f} s", same))
    return rows


def seconds_of(results: Iterable[Transcript | Exception], heard: list[Transcript]) -> Iterable[float]:
    for one in results:
        if isinstance(one, Exception):
            raise one
        heard.append(one)
        yield one.duration


if __name__ == "__main__":
    main()
