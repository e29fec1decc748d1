"""Streams heard from their beginning, chunk by chunk, by turns as an engine makes them: tokens and probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.device import wait
from bench.gpu.streams import SAMPLES, live_runner, numbers_of, were_recorded
from bench.gpu.told import Told
from conure.audio.mel import MelConfig
from conure.audio.stream_features import first_sample
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import CudaStreamStep, StepInputs
from conure.models.checkpoint import Checkpoint
from conure.models.config import LEAD_FRAMES, STEP_FRAMES
from conure.vad.silero_weights import STEP

__all__ = ["Heard", "hear", "tokens_a_second"]

HOP = 160
BEFORE = -first_sample(-LEAD_FRAMES, MelConfig())
"""Samples before a stream's first that its first chunk is made of."""


@dataclass
class Heard:
    tokens: list[list[int]]
    """Of each row."""
    speech: list[np.ndarray] = field(default_factory=list)
    """Probabilities of each turn, [B, n]."""


@torch.inference_mode()
def hear(runner: CudaStreamModel, clips: np.ndarray, chunk: int) -> Heard:
    """clips [B, N] of one length, of which whole chunks are heard."""
    rows = len(clips)
    state = CudaStreamState.allocate(runner, rows)
    turn = CudaStreamStep(runner, state, rows, chunk)
    wait(runner.device)  # where nothing is recorded, nobody has waited for what was written
    samples = torch.from_numpy(np.pad(clips, ((0, 0), (BEFORE, 0))))
    heard, listened = Heard([[] for _ in clips]), 0
    for age in range(0, clips.shape[1] // SAMPLES - chunk, chunk):
        inputs = turn.next_inputs()
        reached = ((age + chunk) * STEP_FRAMES - LEAD_FRAMES) * HOP
        steps = (reached - listened) // STEP
        _fill(inputs, samples, age, chunk, listened, steps, state.scratch)
        listened += steps * STEP
        turn.launch(inputs)
        results = turn.collect()
        for row, tokens in zip(heard.tokens, results.tokens(rows), strict=True):
            row += [token.id for token in tokens]
        heard.speech.append(results.speech[:, :steps].numpy().copy())
    return heard


def _fill(
    inputs: StepInputs, samples: torch.Tensor, age: int, chunk: int, listened: int, steps: int, scratch: int
) -> None:
    """The next chunk of all rows, in the slots of their numbers."""
    first, ear = age * SAMPLES, BEFORE + listened
    begin = min(first, ear)
    given = samples[:, begin : begin + inputs.samples.shape[1]]
    inputs.samples[:, : given.shape[1]].copy_(given)
    known = samples.shape[1] - first
    row = {"age": age, "fresh": int(age == 0), "frames": chunk * STEP_FRAMES, "place": first - begin, "known": known}
    row |= {"ear": ear - begin, "steps": steps, "begins": int(listened == 0)}
    inputs.fill([number for slot in range(len(samples)) for number in numbers_of(slot=slot, into=slot, **row)], scratch)


def tokens_a_second(checkpoint: Checkpoint, device: torch.device) -> Told:
    """Random weights say what they like, but not more or less than people."""
    told = Told("Tokens a second of speech")
    with told.failures("streams"):
        runner, seconds = live_runner(checkpoint, device), 11.0 if device.type == "cuda" else 2.0
        heard = hear(runner, speech(seconds)[None], 1)
        told.note(f"streams: {len(heard.tokens[0]) / seconds:.1f}; those of clips are in their table")
        were_recorded(runner, told)
    return told
