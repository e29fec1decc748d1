"""Transcribes clips: sorted by length, in batches of bounded size.

A batch that does not fit the device's memory is split in halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from conure.constants import SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.device import Device, is_out_of_memory, release_cached_memory
from conure.engine.backends.padding import PaddedBatch, pad_for_device, padded_batches
from conure.engine.lanes.batching import form_batches
from conure.errors import OutOfMemory
from conure.models.config import MAX_FULL_ATTENTION_STEPS
from conure.models.preemptible import Preemptible, run_to_end

__all__ = ["best_batch_seconds", "too_long", "transcribe_batch", "transcribe_clips"]


STEP_SAMPLES = 1280
"""In an encoder frame."""

BATCH_SECONDS = 240.0
"""Audio in a batch, padding counted: 8 clips of 30 s. Larger batches are no faster on a CPU, and take memory."""

GPU_BATCH_SECONDS = 1920.0
"""On a GPU. The encoder would be as fast with 32 clips of 30 s, but decoding takes as long for one clip as for many."""


def best_batch_seconds(device: Device) -> float:
    return GPU_BATCH_SECONDS if device.type == "cuda" else BATCH_SECONDS


def transcribe_clips(
    runner: ClipRunner, clips: Sequence[np.ndarray], prompt: int | None = None, batch_seconds: float = BATCH_SECONDS
) -> list[list[EmittedToken]]:
    """Mono float32 clips at 16 kHz, each [N] -> the tokens of each, in the order given. Raises OutOfMemory."""
    tokens: list[list[EmittedToken]] = [[] for _ in clips]
    # A batch with a long clip uses local attention, and a clip's tokens must not depend on its batch.
    lengths, long_clip = [len(clip) for clip in clips], MAX_FULL_ATTENTION_STEPS * STEP_SAMPLES
    batches = list(form_batches(lengths, int(batch_seconds * SAMPLE_RATE), long_clip))
    padded_clips = padded_batches(runner.device, ([clips[row] for row in rows] for rows in batches))
    for rows, padded in zip(batches, padded_clips, strict=True):
        results = run_to_end(transcribe_batch(runner, [clips[row] for row in rows], prompt, padded=padded))
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, OutOfMemory):
                raise result
            tokens[row] = result
    return tokens


def transcribe_batch(
    runner: ClipRunner,
    clips: Sequence[np.ndarray],
    prompt: int | None = None,
    on_out_of_memory: Callable[[float], None] | None = None,
    padded: PaddedBatch | None = None,
) -> Preemptible[list[list[EmittedToken] | OutOfMemory]]:
    """One batch, in short slices -> the tokens of each clip, or the error of one that does not fit on its own.

    `on_out_of_memory` gets the seconds, padding counted, that did not fit; `padded` are the clips if they were padded
    before.
    """
    try:
        padded = padded or pad_for_device(runner.device, clips)
        return [*(yield from _transcribe(runner, padded, prompt))]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Memory can be released only here: the error, which is gone now, referenced the frames that use it.
    padded = None
    release_cached_memory()
    longest = max(map(len, clips)) / SAMPLE_RATE
    if on_out_of_memory:
        on_out_of_memory(longest * len(clips))
    if len(clips) == 1:
        return [too_long(longest)]
    yield
    results: list[list[EmittedToken] | OutOfMemory] = []
    middle = len(clips) // 2
    for half in (clips[:middle], clips[middle:]):
        results += yield from transcribe_batch(runner, half, prompt, on_out_of_memory)
    return results


def too_long(seconds: float) -> OutOfMemory:
    """The error of a clip that does not fit the device's memory."""
    return OutOfMemory(
        f"a clip of {seconds:.0f} s does not fit the memory of the device", "split it, or use a smaller model"
    )


def _transcribe(runner: ClipRunner, padded: PaddedBatch, prompt: int | None) -> Preemptible[list[list[EmittedToken]]]:
    samples, lengths = padded
    prompts = None if prompt is None else np.full(len(lengths), prompt)
    encoded, counts = yield from runner.encode(samples, lengths, prompts)
    return (yield from runner.decoder.decode(encoded, counts))
