"""Clips to tokens: sorted by length, cut into batches of bounded size, decoded by the model's head.

A batch that the device has no memory for is done in halves, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conure.decoding.ctc import decode_ctc
from conure.decoding.hypothesis import EmittedToken, Tokens
from conure.decoding.transducer import decode_transducer
from conure.engine.batching import batches
from conure.engine.device import give_back, out_of_memory
from conure.engine.runner import Runner
from conure.errors import OutOfMemory
from conure.models.network import Heads
from conure.models.slices import Slices, finish

__all__ = ["decode", "too_long", "transcribe_batch", "transcribe_clips"]

RATE = 16_000

MIN_SAMPLES = 1600
"""A tenth of a second: shorter clips get silence after them, for networks need a few steps to stand on."""

SLICE_STEPS = 64
"""Encoder steps (5 s) decoded in a slice."""

BATCH_SECONDS = 240.0
"""Audio in a batch, padding counted: 8 clips of 30 s. More gains nothing on a CPU and costs memory."""


def transcribe_clips(
    runner: Runner, clips: Sequence[np.ndarray], prompt: int | None = None, batch_seconds: float = BATCH_SECONDS
) -> list[list[EmittedToken]]:
    """Mono float32 clips at 16 kHz, each [N] -> the tokens of each, in the order given. Raises OutOfMemory."""
    tokens: list[list[EmittedToken]] = [[] for _ in clips]
    for rows in batches([len(clip) for clip in clips], int(batch_seconds * RATE)):
        found = finish(transcribe_batch(runner, [clips[row] for row in rows], prompt))
        for row, emitted in zip(rows, found, strict=True):
            if isinstance(emitted, OutOfMemory):
                raise emitted
            tokens[row] = emitted
    return tokens


def transcribe_batch(
    runner: Runner,
    clips: Sequence[np.ndarray],
    prompt: int | None = None,
    did_not_fit: Callable[[float], None] | None = None,
) -> Slices[list[list[EmittedToken] | OutOfMemory]]:
    """One batch in short slices -> the tokens of each clip, or why it alone has none.

    `did_not_fit` is told of the seconds, padding counted, that the device had no memory for.
    """
    try:
        return [*(yield from _transcribe(runner, clips, prompt))]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    # Only here is the error gone, and with it what its frames hold.
    give_back()
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


def _transcribe(runner: Runner, clips: Sequence[np.ndarray], prompt: int | None) -> Slices[list[list[EmittedToken]]]:
    samples, lengths = _pad(clips)
    prompts = None if prompt is None else torch.full((len(clips),), prompt)
    encoded, counts = yield from runner.encode(samples, lengths, prompts)
    if not runner.heads.config.predictor_width:
        return list(decode(runner.heads, encoded, counts))
    tokens: list[list[EmittedToken]] = [[] for _ in clips]
    state = None
    for begin in range(0, encoded.shape[1], SLICE_STEPS):
        yield
        part = encoded[:, begin : begin + SLICE_STEPS]
        found, state = decode_transducer(runner.heads, part, (counts - begin).clamp(0, part.shape[1]), state)
        for row, emitted in zip(tokens, found, strict=True):
            row += emitted
    return tokens


def decode(heads: Heads, encoded: Tensor, counts: Tensor, ctc: bool | None = None) -> Tokens:
    """Greedy tokens by the transducer where there is one, else by CTC; `ctc` chooses in hybrids."""
    if not heads.config.predictor_width or (ctc and heads.config.ctc):
        return decode_ctc(heads, encoded, counts)[0]
    return decode_transducer(heads, encoded, counts)[0]


def _pad(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """samples [B, N], lengths [B]."""
    lengths = [max(len(clip), MIN_SAMPLES) for clip in clips]
    samples = np.zeros((len(clips), max(lengths)), np.float32)
    for row, clip in enumerate(clips):
        samples[row, : len(clip)] = clip
    return torch.from_numpy(samples), torch.tensor(lengths)
