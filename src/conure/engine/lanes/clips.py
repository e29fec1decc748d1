"""Clips to tokens: sorted by length, cut into batches of bounded size, decoded by the model's head.

A batch that the device has no memory for is done in halves, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.device import Device, is_out_of_memory, release_cached_memory
from conure.engine.backends.padding import PaddedBatch, pad_for_device, padded_batches
from conure.engine.lanes.batching import form_batches
from conure.errors import OutOfMemory
from conure.models.config import MAX_FULL_ATTENTION_STEPS
from conure.models.preemptible import Preemptible, run_to_end

__all__ = ["best_batch_seconds", "too_long", "transcribe_batch", "transcribe_clips"]

RATE = 16_000

STEP_SAMPLES = 1280
"""In an encoder step."""

BATCH_SECONDS = 240.0
"""Audio in a batch, padding counted: 8 clips of 30 s. More gains nothing on a CPU and costs memory."""

CARD_BATCH_SECONDS = 1920.0
"""The same on a GPU. By operations and bytes 32 clips of 30 s would be as fast as any number, but decoding takes as
long for one clip as for many, so it should have many."""


def best_batch_seconds(device: Device) -> float:
    return CARD_BATCH_SECONDS if device.type == "cuda" else BATCH_SECONDS


def transcribe_clips(
    runner: ClipRunner, clips: Sequence[np.ndarray], prompt: int | None = None, batch_seconds: float = BATCH_SECONDS
) -> list[list[EmittedToken]]:
    """Mono float32 clips at 16 kHz, each [N] -> the tokens of each, in the order given. Raises OutOfMemory."""
    tokens: list[list[EmittedToken]] = [[] for _ in clips]
    # A batch with a long clip is attended to locally, and what a clip says must not depend on its mates.
    formed = list(
        form_batches([len(clip) for clip in clips], int(batch_seconds * RATE), MAX_FULL_ATTENTION_STEPS * STEP_SAMPLES)
    )
    coming = padded_batches(runner.device, ([clips[row] for row in rows] for rows in formed))
    for rows, padded in zip(formed, coming, strict=True):
        found = run_to_end(transcribe_batch(runner, [clips[row] for row in rows], prompt, padded=padded))
        for row, emitted in zip(rows, found, strict=True):
            if isinstance(emitted, OutOfMemory):
                raise emitted
            tokens[row] = emitted
    return tokens


def transcribe_batch(
    runner: ClipRunner,
    clips: Sequence[np.ndarray],
    prompt: int | None = None,
    did_not_fit: Callable[[float], None] | None = None,
    padded: PaddedBatch | None = None,
) -> Preemptible[list[list[EmittedToken] | OutOfMemory]]:
    """One batch in short slices -> the tokens of each clip, or why it alone has none.

    `did_not_fit` is told of the seconds, padding counted, that the device had no memory for; `padded` are the clips
    where they were padded before.
    """
    try:
        padded = padded or pad_for_device(runner.device, clips)
        return [*(yield from _transcribe(runner, padded, prompt))]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Only here is the error gone, and with it what its frames hold.
    padded = None
    release_cached_memory()
    longest = max(map(len, clips)) / RATE
    if did_not_fit:
        did_not_fit(longest * len(clips))
    if len(clips) == 1:
        return [too_long(longest)]
    yield
    found: list[list[EmittedToken] | OutOfMemory] = []
    middle = len(clips) // 2
    for half in (clips[:middle], clips[middle:]):
        found += yield from transcribe_batch(runner, half, prompt, did_not_fit)
    return found


def too_long(seconds: float) -> OutOfMemory:
    """Of a clip that the device has no memory for."""
    return OutOfMemory(
        f"a clip of {seconds:.0f} s does not fit the memory of the device", "cut it, or take a smaller model"
    )


def _transcribe(runner: ClipRunner, given: PaddedBatch, prompt: int | None) -> Preemptible[list[list[EmittedToken]]]:
    samples, lengths = given
    prompts = None if prompt is None else np.full(len(lengths), prompt)
    encoded, counts = yield from runner.encode(samples, lengths, prompts)
    return (yield from runner.decoder.decode(encoded, counts))
