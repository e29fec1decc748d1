"""Clips to tokens: sorted by length, cut into batches of bounded size, decoded by the model's head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conure.decoding.ctc import decode_ctc
from conure.decoding.hypothesis import EmittedToken, Tokens
from conure.decoding.transducer import decode_transducer
from conure.engine.batching import batches
from conure.engine.runner import Runner
from conure.engine.upload import Padded, pad, uploads
from conure.models.conformer import LONG_STEPS
from conure.models.network import Heads
from conure.models.slices import Slices, finish

__all__ = ["decode", "transcribe_batch", "transcribe_clips"]

STEP_SAMPLES = 1280
"""In an encoder step."""

BATCH_SECONDS = 240.0
"""Audio in a batch, padding counted: 8 clips of 30 s. More gains nothing on a CPU and costs memory."""


def transcribe_clips(
    runner: Runner, clips: Sequence[np.ndarray], prompt: int | None = None, batch_seconds: float = BATCH_SECONDS
) -> list[list[EmittedToken]]:
    """Mono float32 clips at 16 kHz, each [N] -> the tokens of each, in the order given."""
    tokens: list[list[EmittedToken]] = [[] for _ in clips]
    # A batch with a long clip is attended to locally, and what a clip says must not depend on its mates.
    formed = list(batches([len(clip) for clip in clips], int(batch_seconds * 16_000), LONG_STEPS * STEP_SAMPLES))
    coming = uploads(([clips[row] for row in rows] for rows in formed), runner.heads.device)
    for rows, padded in zip(formed, coming, strict=True):
        found = finish(transcribe_batch(runner, [clips[row] for row in rows], prompt, padded))
        for row, emitted in zip(rows, found, strict=True):
            tokens[row] = emitted
    return tokens


def transcribe_batch(
    runner: Runner, clips: Sequence[np.ndarray], prompt: int | None = None, padded: Padded | None = None
) -> Slices[list[list[EmittedToken]]]:
    """One batch in short slices -> the tokens of each clip; `padded` are the clips where they were padded before."""
    samples, lengths = padded or pad(clips, pinned=runner.heads.device.type == "cuda")
    prompts = None if prompt is None else torch.full((len(clips),), prompt)
    encoded, counts = yield from runner.encode(samples, lengths, prompts)
    return (yield from runner.decoder.decode(encoded, counts))


def decode(heads: Heads, encoded: Tensor, counts: Tensor, ctc: bool | None = None) -> Tokens:
    """Greedy tokens by the transducer where there is one, else by CTC; `ctc` chooses in hybrids."""
    if not heads.config.predictor_width or (ctc and heads.config.ctc):
        return decode_ctc(heads, encoded, counts)[0]
    return decode_transducer(heads, encoded, counts)[0]
