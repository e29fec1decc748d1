"""Operation counts and minimum memory traffic of clips and streaming steps, by stage: lower bounds of their times.

    python -m bench.operations [--report FILE]

Operations are those of the modules; a multiply-add counts as two. Minimum bytes assume that elementwise operations are
fused into neighbouring matrix products: weights are read once per batch, each product reads its inputs and writes its
outputs once, norms are a separate pass. A time is the larger of operations and bytes at the measured peak rates of an
H200, and so a lower bound. `attention` is listed twice: as one kernel that computes the positional bias on the fly, and
with the bias written to memory, as in torch.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.random_model import LIVE_PAST, build, random_live_checkpoint
from bench.report import replace_between
from conure.audio.mel import MelConfig
from conure.constants import ENCODER_FRAME_SECONDS
from conure.models.config import (
    LONG_CONTEXT,
    MAX_FULL_ATTENTION_STEPS,
    STEP_FRAMES,
    EncoderConfig,
    NetworkConfig,
)
from conure.models.folded_encoder import MAX_CACHED_REACH

HALF, FULL = 2, 4
"""Bytes of a number in bfloat16 and float32."""
HALF_RATE, FULL_RATE, BYTE_RATE = 790e12, 60e12, 4.3e12
"""Operations and bytes per second of an H200: measured, except float32, which is 90 % of the data sheet's."""
DECODER_ITERATIONS, WINDOW = 4.0, 4
"""Decoder iterations per second of speech with three tokens; encoder frames that an iteration scores."""

CLIPS = [(rows, seconds) for seconds in (15, 30) for rows in (1, 32, 128, 256)] + [(1, 300), (1, 1200), (1, 3600)]
STEPS = [(rows, chunk) for chunk in (1, 2, 4, 14) for rows in (1, 256, 2048)]


@dataclass(frozen=True)
class Work:
    operations: float = 0.0
    bytes: float = 0.0
    rate: float = HALF_RATE

    @property
    def seconds(self) -> float:
        return max(self.operations / self.rate, self.bytes / BYTE_RATE)

    @property
    def bound(self) -> str:
        """The limiting resource: C for computation, M for memory."""
        return "C" if self.operations / self.rate > self.bytes / BYTE_RATE else "M"

    def times(self, count: int) -> Work:
        return Work(self.operations * count, self.bytes * count, self.rate)


def features(mel: MelConfig, rows: int, frames: int) -> Work:
    """The spectrum counts as 2.5 N log2 N operations, plus the product with the filterbank."""
    bins = mel.fft // 2 + 1
    spectrum = 2.5 * mel.fft * math.log2(mel.fft)
    moved = (
        rows * frames * FULL * (mel.hop + 4 * mel.features)
    )  # written; read for mean and deviation, and to apply them
    return Work(rows * frames * (2 * bins * mel.features + spectrum), moved, FULL_RATE)


def subsampling(config: EncoderConfig, rows: int, frames: int) -> Work:
    channels, operations, numbers = config.channels, 0, rows * frames * config.features
    bands = config.features
    for stage in range(3):
        extra = 0 if config.causal_subsampling else 1
        frames, bands = (frames - extra) // 2 + 1, (bands - extra) // 2 + 1
        points = rows * frames * bands * channels
        operations += 2 * 9 * points  # one input channel in the first stage, depthwise in the others
        numbers += 2 * points
        if stage:
            operations += 2 * channels * points
            numbers += 2 * points
    steps = rows * frames
    operations += 2 * steps * channels * bands * config.width
    return Work(operations, HALF * (numbers + steps * config.width + channels * bands * config.width))


def products(config: EncoderConfig, steps: int) -> Work:
    """A layer without attention, including the depthwise convolution; `steps` is the total of all rows."""
    width, expansion = config.width, config.expansion
    weights = (4 * expansion + 3 + 1 + 2 + 1) * width**2
    # Five norms; two products up and two down; project, out, mix and mix; convolution; residuals are read after each.
    numbers = (5 * 2) + 2 * (1 + expansion) + 2 * (expansion + 2) + (1 + 3) + (1 + 2) + (1 + 2) + (1 + 2) + (2 + 1)
    operations = 2 * steps * weights + 2 * steps * width * config.kernel
    return Work(operations, HALF * (weights + steps * width * numbers))


def attention(config: EncoderConfig, rows: int, queries: int, keys: int, fused: bool) -> Work:
    """Attention of a layer. If not fused, the positional bias has more distances than keys and is moved twice."""
    distances = keys if fused else queries + keys - 1
    operations = rows * queries * config.width * (4 * keys + 2 * distances)
    numbers = rows * config.width * (2 * queries + 2 * keys)
    if not fused:
        numbers += rows * config.heads * queries * 2 * (distances + keys)
    return Work(operations, HALF * numbers)


def positions(config: EncoderConfig, steps: int) -> Work:
    """Positional encodings of a layer; up to MAX_CACHED_REACH they are cached."""
    distances, width = 2 * steps - 1, config.width
    return Work(2 * distances * width**2, HALF * (2 * distances * width + width**2))


def decoding(config: NetworkConfig, rows: int, steps: int, iterations: int, window: int = WINDOW) -> Work:
    """Each iteration reads the weights of the heads; a part of them may be in the cache and faster."""
    joint, memory = config.joint_width, config.predictor_width
    outputs = config.vocabulary + 1 + len(config.durations)
    weights = config.predictor_layers * 8 * memory**2 + memory * joint
    project = steps * config.encoder.width * joint
    operations = 2 * rows * (project + iterations * (weights + window * joint * outputs))
    moved = iterations * (weights + joint * outputs) + rows * (
        steps * (config.encoder.width + joint) + iterations * window * outputs
    )
    return Work(operations, FULL * moved, FULL_RATE)


def clip(config: NetworkConfig, rows: int, seconds: float) -> dict[str, Work]:
    """All stages of a batch of clips of one length, with both variants of attention."""
    frames = round(seconds * config.mel.sample_rate / config.mel.hop)
    encoder, steps = config.encoder, -(-frames // STEP_FRAMES)
    shape = (rows, steps, steps)
    if steps > MAX_FULL_ATTENTION_STEPS:
        window = LONG_CONTEXT.left
        shape = (rows * -(-steps // window), window, 3 * window)
    kept = steps <= MAX_CACHED_REACH or steps > MAX_FULL_ATTENTION_STEPS
    return {
        "features": features(config.mel, rows, frames),
        "subsampling": subsampling(encoder, rows, frames),
        "positions": Work() if kept else positions(encoder, steps).times(encoder.layers),
        "products": products(encoder, rows * steps).times(encoder.layers),
        "attention": attention(encoder, *shape, fused=True).times(encoder.layers),
        "attention, bias written": attention(encoder, *shape, fused=False).times(encoder.layers),
        "decoding": decoding(config, rows, steps, round(DECODER_ITERATIONS * seconds)),
    }


def encoder_step(config: EncoderConfig, rows: int, chunk: int, past: int) -> dict[str, Work]:
    """A streaming step of the encoder, with keys and values in rings, or copied around attention."""
    keys = past + chunk
    memory = rows * config.width * (config.kernel - 1)
    ring = 2 * rows * config.width * chunk + 2 * memory
    # Gather, concatenate, stack, select, scatter: each reads and writes.
    copied = 2 * rows * config.width * (11 * past + 2 * chunk) + 11 * memory
    return {
        "products": products(config, rows * chunk).times(config.layers),
        "attention": attention(config, rows, chunk, keys, fused=True).times(config.layers),
        "memory in rings": Work(0, HALF * ring).times(config.layers),
        "memory copied": Work(0, HALF * copied).times(config.layers),
    }


def stream_step(config: NetworkConfig, rows: int, chunk: int, past: int) -> dict[str, Work]:
    """All stages of a step of streams with state in rings, except the speech detector."""
    encoder, frames = config.encoder, chunk * STEP_FRAMES
    layers = encoder_step(encoder, rows, chunk, past)
    tokens = max(1, round(DECODER_ITERATIONS * chunk * ENCODER_FRAME_SECONDS))
    return {
        "features": features(config.mel, rows, frames),
        "subsampling": subsampling(encoder, rows, frames),
        **{name: layers[name] for name in ("products", "attention", "memory in rings")},
        "decoding": decoding(config, rows, chunk, tokens, min(chunk, WINDOW)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="page to write the tables to, between markers")
    options = parser.parse_args()
    offline, streaming = (_whole(config) for config in (build(8192, 1).config, random_live_checkpoint(1).config))
    text = "\n\n".join([clips_table(offline, CLIPS), steps_table(streaming.encoder, STEPS)])
    print(text)
    if options.report:
        replace_between(options.report, "operations", text)


def _whole(config: NetworkConfig) -> NetworkConfig:
    """The configuration with all layers of the 0.6B models."""
    return replace(config, encoder=replace(config.encoder, layers=24))


def clips_table(config: NetworkConfig, cases: Sequence[tuple[int, float]]) -> str:
    """Milliseconds of each stage with its limiting resource; throughput in times real time."""
    rows = [clip(config, count, seconds) for count, seconds in cases]
    names = list(rows[0])
    lines = [["clips", "Tflop", "GB", *names, "all", "times real time", "with bias written"]]
    for (count, seconds), stages in zip(cases, rows, strict=True):
        written = stages["attention, bias written"].seconds - stages["attention"].seconds
        counted = [work for name, work in stages.items() if name != "attention, bias written"]
        total = sum(work.seconds for work in counted)
        cells = [f"{count} x {seconds:.0f} s", *_sums(counted), *(_format(work) for work in stages.values())]
        speeds = [f"{count * seconds / (total + extra):,.0f}" for extra in (0.0, written)]
        lines.append([*cells, f"{total * 1e3:.2f}", *speeds])
    return _table(lines)


def steps_table(config: EncoderConfig, cases: Sequence[tuple[int, int]]) -> str:
    """Milliseconds of each part of a streaming step and in total, and the resulting capacity in streams."""
    rows = [encoder_step(config, count, chunk, LIVE_PAST) for count, chunk in cases]
    lines = [["rows x chunk", *rows[0], "all, rings", "all, copied", "streams, rings", "streams, copied"]]
    for (count, chunk), stages in zip(cases, rows, strict=True):
        shared = stages["products"].seconds + stages["attention"].seconds
        totals = [shared + stages[name].seconds for name in ("memory in rings", "memory copied")]
        capacities = [f"{count * chunk * 80 / 1e3 / total:,.0f}" for total in totals]
        times = [f"{total * 1e3:.2f}" for total in totals]
        lines.append([f"{count:,} x {chunk}", *(_format(work) for work in stages.values()), *times, *capacities])
    return _table(lines)


def _sums(works: Iterable[Work]) -> tuple[str, str]:
    works = list(works)
    return f"{sum(w.operations for w in works) / 1e12:.2f}", f"{sum(w.bytes for w in works) / 1e9:.1f}"


def _format(work: Work) -> str:
    return f"{work.seconds * 1e3:.2f} {work.bound}" if work.bytes else "0"


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rest))


if __name__ == "__main__":
    main()
