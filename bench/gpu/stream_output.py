"""Tokens and speech probabilities of whole streams, decoded chunk by chunk as in an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.device import synchronize
from bench.gpu.result_table import ResultTable
from bench.gpu.streams import SAMPLES, live_runner, note_capture_failure, numbers_of
from conure.audio.mel import MelConfig
from conure.audio.stream_features import first_sample
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import CudaStreamStep, StepInputs
from conure.models.checkpoint import Checkpoint
from conure.models.config import LEAD_FRAMES, STEP_FRAMES
from conure.vad.silero_weights import STEP

__all__ = ["StreamOutput", "decode_streams", "tokens_per_second"]

HOP = 160
BEFORE = -first_sample(-LEAD_FRAMES, MelConfig())
"""Zeros before the first sample, which the first chunk's features include."""


@dataclass
class StreamOutput:
    tokens: list[list[int]]
    """By row."""
    speech: list[np.ndarray] = field(default_factory=list)
    """Speech probabilities of each step, [B, n]."""


@torch.inference_mode()
def decode_streams(runner: CudaStreamModel, clips: np.ndarray, chunk: int) -> StreamOutput:
    """Decodes the whole chunks of clips [B, N]."""
    rows = len(clips)
    state = CudaStreamState.allocate(runner, rows)
    turn = CudaStreamStep(runner, state, rows, chunk)
    synchronize(runner.device)  # without a graph capture, initialization may still be running
    samples = torch.from_numpy(np.pad(clips, ((0, 0), (BEFORE, 0))))
    output, analysed = StreamOutput([[] for _ in clips]), 0
    for age in range(0, clips.shape[1] // SAMPLES - chunk, chunk):
        inputs = turn.next_inputs()
        reached = ((age + chunk) * STEP_FRAMES - LEAD_FRAMES) * HOP
        steps = (reached - analysed) // STEP
        _fill(inputs, samples, age, chunk, analysed, steps, state.scratch)
        analysed += steps * STEP
        turn.launch(inputs)
        results = turn.collect()
        for row, tokens in zip(output.tokens, results.tokens(rows), strict=True):
            row += [token.id for token in tokens]
        output.speech.append(results.speech[:, :steps].numpy().copy())
    return output


def _fill(
    inputs: StepInputs, samples: torch.Tensor, age: int, chunk: int, analysed: int, steps: int, scratch: int
) -> None:
    """Fills in the next chunk of all rows; row n uses slot n."""
    first, vad_start = age * SAMPLES, BEFORE + analysed
    begin = min(first, vad_start)
    given = samples[:, begin : begin + inputs.samples.shape[1]]
    inputs.samples[:, : given.shape[1]].copy_(given)
    known = samples.shape[1] - first
    row = {"age": age, "is_new": int(age == 0), "frames": chunk * STEP_FRAMES, "first_sample": first - begin}
    row |= {"valid_samples": known, "vad_sample": vad_start - begin, "steps": steps, "is_vad_new": int(analysed == 0)}
    inputs.fill(
        [number for slot in range(len(samples)) for number in numbers_of(slot=slot, write_slot=slot, **row)], scratch
    )


def tokens_per_second(checkpoint: Checkpoint, device: torch.device) -> ResultTable:
    """Checks that random weights give a realistic rate of tokens."""
    table = ResultTable("Tokens per second of speech")
    with table.record_failures("streams"):
        runner, seconds = live_runner(checkpoint, device), 11.0 if device.type == "cuda" else 2.0
        output = decode_streams(runner, speech(seconds)[None], 1)
        table.add_note(f"streams: {len(output.tokens[0]) / seconds:.1f}; see the table of clips for clips")
        note_capture_failure(runner, table)
    return table
