"""Checks and measures everything that a card can do, in one command.

    python -m bench.gpu [--device cuda] [--layers 24] [--minutes 8] [--report FILE]

1. The card gives what the CPU gives: bfloat16 against float32 for the encoder of clips and for the streaming step, as
   relative distances; the embedded model's words on a clip of real speech.
2. Clips: seconds of audio a second, by batch, with random weights of the size of parakeet-tdt-0.6b.
3. Streams: what a turn takes, by rows and chunk, with random weights of nemotron-speech-streaming-en-0.6b; how many
   streams that is in time. Encoder and decoding apart.
4. Memory of a row, and of the whole.

`--device cpu --layers 2` runs the same code here, to see that it works.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.audio import speech
from bench.random_model import build, calibrate
from bench.report import replace_between
from bench.stream_step import PAST, STEP_MS, random_checkpoint
from conure.audio.features import LogMel
from conure.decoding.transducer import decode_transducer
from conure.engine.clips import transcribe_clips
from conure.engine.stream_runner import TorchStreamRunner
from conure.engine.torch_runner import TorchRunner
from conure.models.config import STEP_FRAMES
from conure.models.loading import build_network
from conure.models.slices import finish
from conure.service.recognizer import load

DEMO = Path(__file__).parents[1] / "tests" / "data" / "demo.flac"
CLIP_SECONDS = 30
CLIP_BATCHES = (1, 8, 32, 128, 256)
CHUNKS = (1, 2, 4, 7, 14)
ROWS = (1, 16, 64, 256, 512, 1024, 2048, 4096)
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further case is begun")
    parser.add_argument("--batches", type=int, nargs="*", default=CLIP_BATCHES)
    parser.add_argument("--report", type=Path, help="a page to put the tables into, between markers")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no card here; --device cpu --layers 2 shows that the bench works")
    until = time.monotonic() + 60 * options.minutes
    parts = [_name(device), agreement(device, options.layers), words(options.device)]
    parts += [clips(device, options.layers, options.batches, until), streams(device, options.layers, until)]
    text = "\n\n".join(parts)
    print(text)
    if options.report:
        replace_between(options.report, "card", text)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"CPU, torch {torch.__version__}"


def agreement(device: torch.device, layers: int) -> str:
    """Relative distances of the encoder's output from float32 on the CPU."""
    checkpoint = random_checkpoint(layers)
    plain = TorchStreamRunner(*build_network(checkpoint), torch.device("cpu"))
    fast = TorchStreamRunner(*build_network(checkpoint), device, torch.bfloat16)
    exact = TorchStreamRunner(*build_network(checkpoint), device, torch.float32)
    worst = {"bfloat16": 0.0, "float32": 0.0}
    states = [runner.allocate(4) for runner in (plain, fast, exact)]
    for _ in range(6):
        mel, frames = torch.randn(4, 2 * STEP_FRAMES, 128), torch.full((4,), 2 * STEP_FRAMES)
        told = [
            runner.step(mel.to(at), frames.to(at), state, torch.arange(4, device=at))[0].cpu()
            for runner, state, at in zip((plain, fast, exact), states, ("cpu", device, device), strict=True)
        ]
        for name, other in (("bfloat16", told[1]), ("float32", told[2])):
            worst[name] = max(worst[name], float((other - told[0]).norm() / told[0].norm()))
    return "streaming step against float32 on the CPU: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items())


def words(device: str) -> str:
    there, here = (load("tiny", device=place).transcribe(DEMO).text for place in (device, "cpu"))
    return f"the embedded model hears {there!r}" + (", as on the CPU" if there == here else f"; the CPU {here!r}")


@torch.inference_mode()
def clips(device: torch.device, layers: int, batches: Sequence[int], until: float) -> str:
    network = build(8192, layers)
    rate = calibrate(network)
    runner = TorchRunner(network, LogMel(network.config.mel), device)
    clip = speech(CLIP_SECONDS)
    rows = [f"{CLIP_SECONDS} s clips, {layers} layers of 1,024, {rate:.1f} tokens a second:", ""]
    rows += ["| batch | times real time | encoder ms | decoding ms | memory GB |", "|---|---|---|---|---|"]
    rows += [_clips(runner, clip, batch, device) for batch in batches if time.monotonic() < until]
    return "\n".join(rows)


def _clips(runner: TorchRunner, clip: np.ndarray, batch: int, device: torch.device) -> str:
    samples = torch.from_numpy(clip)[None].repeat(batch, 1)
    lengths = torch.full((batch,), len(clip))
    seconds = CLIP_SECONDS * batch
    encoder, (encoded, counts) = _best(device, lambda: finish(runner.encode(samples, lengths)))
    decoding, _ = _best(device, lambda: decode_transducer(runner.heads, encoded, counts))
    whole, _ = _best(device, lambda: transcribe_clips(runner, [clip] * batch, batch_seconds=seconds))
    return f"| {batch} | {seconds / whole:.0f} | {encoder * 1e3:.1f} | {decoding * 1e3:.1f} | {_memory(device):.1f} |"


@torch.inference_mode()
def streams(device: torch.device, layers: int, until: float) -> str:
    runner = TorchStreamRunner(*build_network(random_checkpoint(layers)), device)
    row_bytes = runner.allocate(1).encoder.bytes
    rows = [f"streams, {layers} layers of 1,024, {PAST} steps of past, {row_bytes / 1e6:.1f} MB a row:", ""]
    rows += ["| chunk | rows | turn ms | encoder ms | decoding ms | streams in time |", "|---|---|---|---|---|---|"]
    for chunk in CHUNKS:
        for count in ROWS:
            if time.monotonic() > until or 2 * count * row_bytes > _free(device):
                break
            encoder, decoding = _turn(runner, device, chunk, count)
            held = count * chunk * STEP_MS / 1e3 / (encoder + decoding)
            times = f"{(encoder + decoding) * 1e3:.1f} | {encoder * 1e3:.1f} | {decoding * 1e3:.1f}"
            rows.append(f"| {chunk * STEP_MS} ms | {count} | {times} | {held:.0f} |")
            if encoder + decoding > chunk * STEP_MS / 1e3:
                break  # more would be late
    return "\n".join(rows)


def _turn(runner: TorchStreamRunner, device: torch.device, chunk: int, count: int) -> tuple[float, float]:
    """Seconds of the encoder's step and of decoding, of rows whose past is full."""
    state = runner.allocate(count + 1)
    state.encoder.started[:] = True
    state.encoder.length[:] = PAST
    rows = torch.randperm(count, device=device)
    mel = torch.randn(count, chunk * STEP_FRAMES, 128, device=device)
    frames = torch.full((count,), chunk * STEP_FRAMES, device=device)
    encoder, (encoded, counts) = _best(device, lambda: runner.step(mel, frames, state, rows))

    def decode() -> None:
        _, after = decode_transducer(runner.heads, encoded, counts, state.decoder.gather(rows))
        state.decoder.scatter(rows, after)

    decoding, _ = _best(device, decode)
    return encoder, decoding


def _best(device: torch.device, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, the least of some rounds after one that warms up, and what was returned."""
    result, best = call(), float("inf")
    for _ in range(ROUNDS if device.type == "cuda" else 1):
        _wait(device)
        begin = time.perf_counter()
        result = call()
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return best, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def _free(device: torch.device) -> float:
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 4e9


if __name__ == "__main__":
    main()
