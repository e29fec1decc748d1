"""Archives: speed of reading and segmentation, and of transcribing many recordings together or one by one.

    python -m bench.archive --data FOLDER [--model tiny] [--device auto] [--workers N ...] [--rounds 2]

1. Stages by file type, in this process: audio per CPU second of decoding (with mixing and resampling), of the speech
   detector, and of segmentation.
2. Reading, decoding, detection and segmentation in several processes, without a model.
3. The same files with `Recognizer.transcribe_many` and with `transcribe`, alternately; the best of all rounds counts.
   The words have to be equal.

Besides wall-clock speed, the tables list audio per CPU second of this process and its workers, which other programs
affect less.
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
    parser.add_argument("--data", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, nargs="*", help=f"default: those of {WORKERS} up to the number of cores")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    files = sorted(path for path in options.data.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES)
    facts = machine()
    print(
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load'][0]:.1f}; {len(files)} files\n", flush=True
    )
    print(table(stage_table(files)), flush=True)
    counts = options.workers or [count for count in WORKERS if count <= facts["cores"]]
    print(table(read_table(files, counts, options.rounds)), flush=True)
    print(
        table(transcribe_table(files, load(options.model, device=options.device), counts, options.rounds)), flush=True
    )


def stage_table(files: Sequence[Path]) -> list[Sequence[str]]:
    """Audio per CPU second of each stage, by suffix."""
    kinds = defaultdict(list)
    for path in files:
        kinds[path.suffix.lower()].append(path)
    rows: list[Sequence[str]] = [("kind", "audio", "decode", "detect", "segment", "all", "share of the detector")]
    load_silero()
    for kind, paths in sorted(kinds.items()):
        seconds, cpu_seconds = 0.0, np.zeros(3)
        for path in paths:
            audio, times = stages_of(path)
            seconds, cpu_seconds = seconds + audio, cpu_seconds + times
        speeds = [f"{seconds / part:.0f} x" for part in (*cpu_seconds, cpu_seconds.sum())]
        rows.append((kind, f"{seconds:.0f} s", *speeds, f"{cpu_seconds[1] / cpu_seconds.sum():.0%}"))
    return rows


def stages_of(path: Path) -> tuple[float, np.ndarray]:
    """Seconds of audio; CPU seconds of each stage [3]."""
    started_at = time.process_time()
    with open_audio(path) as reader:
        blocks = [block[0] for block in reader.blocks()]
    decoded = time.process_time()
    stream = load_silero().open_stream()
    probabilities = [*(stream.push(block) for block in blocks), stream.finish()]
    detected = time.process_time()
    segmenter = Segmenter(SegmentationSettings())
    for block, detected in zip([*blocks, np.zeros(0, np.float32)], probabilities, strict=True):
        segmenter.push(block, detected)
    segmenter.finish()
    return reader.seconds_read, np.diff([started_at, decoded, detected, time.process_time()])


def read_table(files: Sequence[Path], counts: Sequence[int], rounds: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("workers", "read and segmented per second", "per CPU second")]
    for count in counts:
        wall, core = best_of(speeds_of(lambda count=count: read_only(files, count)) for _ in range(rounds))
        rows.append((f"{count}", f"{wall:.0f} s", f"{core:.0f} s"))
    return rows


def read_only(files: Sequence[Path], workers: int) -> Iterable[float]:
    """Seconds of each file; clips get no words."""

    def transcribe(clips: Sequence[np.ndarray]) -> list[list[Word]]:
        return [[] for _ in clips]

    cut = SegmentationSettings()
    archive = BulkTranscription(
        files, transcribe, lambda words, _: words, segmentation=cut, batch_seconds=BATCH_SECONDS, workers=workers
    )
    return [recording.seconds for recording in archive.results()]


Speeds = tuple[float, float]
"""Audio per second, and per CPU second."""


def speeds_of(make: Callable[[], Iterable[float]]) -> Speeds:
    started_at, cpu_seconds = time.perf_counter(), processor_seconds()
    seconds = sum(make())
    return seconds / (time.perf_counter() - started_at), seconds / (processor_seconds() - cpu_seconds)


def processor_seconds() -> float:
    """CPU seconds of this process and its ended children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def best_of(measured: Iterable[Speeds]) -> Speeds:
    wall, core = zip(*measured, strict=True)
    return max(wall), max(core)


def transcribe_table(
    files: Sequence[Path], recognizer: Recognizer, counts: Sequence[int], rounds: int
) -> list[Sequence[str]]:
    methods: dict[str, Callable[[], Iterable[Transcript | Exception]]] = {
        "one after the other": lambda: map(recognizer.transcribe, files),
    }
    for count in counts:
        methods[f"together, workers {count}"] = lambda count=count: recognizer.transcribe_many(files, workers=count)
    measured, texts = defaultdict(list), defaultdict(set)
    for _ in range(rounds):
        for method, transcribe in methods.items():
            done: list[Transcript] = []
            measured[method].append(speeds_of(lambda t=transcribe, d=done: seconds_of(t(), d)))
            texts[method].add(tuple(transcript.text for transcript in done))
    (baseline,) = texts["one after the other"]
    rows: list[Sequence[str]] = [("", "transcribed per second", "", "per CPU second", "same words")]
    first, _ = best_of(measured["one after the other"])
    for method, speeds in measured.items():
        wall, core = best_of(speeds)
        same = "yes" if texts[method] == {baseline} else "no"
        rows.append((method, f"{wall:.0f} s", f"{wall / first:.2f} x", f"{core:.0f} s", same))
    return rows


def seconds_of(results: Iterable[Transcript | Exception], done: list[Transcript]) -> Iterable[float]:
    """Seconds of each transcript, which is also appended to `done`."""
    for transcript in results:
        if isinstance(transcript, Exception):
            raise transcript
        done.append(transcript)
        yield transcript.duration


if __name__ == "__main__":
    main()
