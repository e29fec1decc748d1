"""Decodes clips on a device, in slices, by captured loops.

Replays run one block ahead: the host reads whether a block was the last one while the next block is already running, so
the device never waits for the host. An extra block changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conure.decoding.label_looping import LabelLooping
from conure.decoding.transducer import TransducerState
from conure.engine.backends.cuda.graph_capture import CudaGraphCapturer, GraphCapturer
from conure.engine.backends.decoder import Tokens
from conure.models.network import Heads
from conure.models.preemptible import Preemptible

__all__ = ["GraphDecoder", "window_for"]

GRAPH_STEPS = 512
"""Encoder steps of a captured loop: 41 s, so that nearly every clip is one slice."""
TOKENS_PER_BLOCK = 8
"""Iterations (tokens per row) of a captured block."""
MAX_BLOCKS = 40
"""Repetitions of a block in a conditional graph; speech needs about 20 for GRAPH_STEPS."""
MAX_WINDOW, MIN_WINDOW = 8, 4
"""Limits of the window of steps per iteration, for few rows and for many. TDT skips most blanks, so with many rows its
window is one step."""
JOINT_TILE = 64
"""Joint inputs for which its weights are read once: up to this number the time per iteration is constant."""


@dataclass(frozen=True)
class _CapturedLoop:
    loop: LabelLooping
    replay: Callable[[], None]
    flags: tuple[_Flag, _Flag]


class GraphDecoder:
    """Decodes transducers on a device. A slice is a block of iterations; each concurrent batch has its own loop."""

    def __init__(
        self, heads: Heads, capturer: GraphCapturer, window: int | None = None, *, conditional: bool = False
    ) -> None:
        """`window`: steps scored per iteration, by default `window_for` the rows. `conditional` graphs repeat on the
        device until all rows are finished."""
        self.heads, self.capturer, self.window, self.conditional = heads, capturer, window, conditional
        self._idle: dict[int, list[_CapturedLoop]] = defaultdict(list)
        """Idle loops by their number of rows, a power of two."""

    @torch.inference_mode()
    def prepare(self, max_rows: int) -> None:
        """Captures loops for up to `max_rows` rows, the largest first, so that the others reuse its memory. A later
        capture would stall all other work on the device."""
        for power in range((max_rows - 1).bit_length(), -1, -1):
            self._idle[1 << power].append(self._capture(1 << power))

    @torch.inference_mode()
    def decode(self, encoded: Tensor, counts: Tensor) -> Preemptible[Tokens]:
        size = 1 << (len(counts) - 1).bit_length()
        captured = self._idle[size].pop() if self._idle[size] else self._capture(size)
        try:
            return (yield from self._decode(captured, encoded, counts))
        finally:
            self._idle[size].append(captured)

    def _decode(self, captured: _CapturedLoop, encoded: Tensor, counts: Tensor) -> Preemptible[Tokens]:
        loop, rows = captured.loop, len(counts)
        state = TransducerState.start(self.heads, loop.rows)
        tokens: Tokens = [[] for _ in range(rows)]
        for begin in range(0, encoded.shape[1], GRAPH_STEPS):
            part = encoded[:, begin : begin + GRAPH_STEPS]
            loop.begin(part, (counts - begin).clamp(0, part.shape[1]), state)
            yield from self._run_to_end(captured)
            state = loop.state()
            for row, emitted in zip(tokens, loop.tokens.rows(0, rows), strict=True):
                row += emitted
        return tokens

    def _capture(self, rows: int) -> _CapturedLoop:
        window = self.window or window_for(rows, has_durations=bool(self.heads.config.durations))
        loop = LabelLooping(self.heads, rows, GRAPH_STEPS, TOKENS_PER_BLOCK, window)
        if self.conditional and isinstance(self.capturer, CudaGraphCapturer):
            replay = self.capturer.capture_repeated(loop.advance, loop.unfinished, MAX_BLOCKS)
        else:
            replay = self.capturer(loop.advance)
        return _CapturedLoop(loop, replay, (_Flag(self.heads.device), _Flag(self.heads.device)))

    def _run_to_end(self, captured: _CapturedLoop) -> Preemptible[None]:
        """Replays blocks until all rows are finished, plus one block that was launched before that was known."""
        last, following = captured.flags
        captured.replay()
        last.request(captured.loop.unfinished)
        while not (self.conditional and not last.wait()):
            yield
            captured.replay()
            following.request(captured.loop.unfinished)
            if not last.wait():
                return
            last, following = following, last


def window_for(rows: int, *, has_durations: bool) -> int:
    """The largest window that costs no extra time; at least MIN_WINDOW for networks without durations, for which fewer
    iterations outweigh their longer time."""
    return min(MAX_WINDOW, max(JOINT_TILE // rows, 1 if has_durations else MIN_WINDOW))


class _Flag:
    """A bool on the device that the host reads asynchronously."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._value = torch.zeros((), dtype=torch.bool, pin_memory=pinned)
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]

    def request(self, value: Tensor) -> None:
        self._value.copy_(value, non_blocking=True)
        if self._event:
            self._event.record(torch.cuda.current_stream(value.device))

    def wait(self) -> bool:
        if self._event:
            self._event.synchronize()
        return bool(self._value)
