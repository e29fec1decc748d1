"""Decodes clips on a device, in slices, by loops that were recorded.

They are played one ahead: whether a block of steps was the last one is looked up while the next is already
running, so the device never waits for the host. A block too many changes nothing.
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

RECORDED_STEPS = 512
"""Encoder steps decoded by a recorded loop: 41 s, so nearly every clip is one slice."""
TIMES = 8
"""Tokens a row that a recorded block looks for."""
MOST_BLOCKS = 40
"""In a recording that repeats itself; speech needs about twenty for RECORDED_STEPS."""
MOST_WINDOW, LEAST_WINDOW = 8, 4
"""Steps that a recorded loop looks at together, for few rows and for many. TDT jumps over most blanks, so for many rows
it looks at one step."""
TILE = 64
"""Steps of all rows for which the joint's weights are read once: no more of them take no more time."""


@dataclass(frozen=True)
class _Recorded:
    loop: LabelLooping
    play: Callable[[], None]
    flags: tuple[_Flag, _Flag]


class GraphDecoder:
    """For transducers on a device. A slice is a block of steps; each batch has a loop of its own meanwhile."""

    def __init__(
        self, heads: Heads, recorder: GraphCapturer, window: int | None = None, *, conditional: bool = False
    ) -> None:
        """`window` steps are looked at together; by default as `window_for` the rows has it. `conditional` recordings
        repeat themselves on the device until all rows are done."""
        self.heads, self.capturer, self.window, self.conditional = heads, recorder, window, conditional
        self._idle: dict[int, list[_Recorded]] = defaultdict(list)
        """Loops by their rows, which are powers of two."""

    @torch.inference_mode()
    def prepare(self, most: int) -> None:
        """Records loops for up to so many rows, the largest first: the others take their memory from what it took. A
        recording made later would hold up everything on the device."""
        for power in range((most - 1).bit_length(), -1, -1):
            self._idle[1 << power].append(self._record(1 << power))

    @torch.inference_mode()
    def decode(self, encoded: Tensor, counts: Tensor) -> Preemptible[Tokens]:
        size = 1 << (len(counts) - 1).bit_length()
        recorded = self._idle[size].pop() if self._idle[size] else self._record(size)
        try:
            return (yield from self._decode(recorded, encoded, counts))
        finally:
            self._idle[size].append(recorded)

    def _decode(self, recorded: _Recorded, encoded: Tensor, counts: Tensor) -> Preemptible[Tokens]:
        loop, rows = recorded.loop, len(counts)
        state = TransducerState.start(self.heads, loop.rows)
        tokens: Tokens = [[] for _ in range(rows)]
        for begin in range(0, encoded.shape[1], RECORDED_STEPS):
            part = encoded[:, begin : begin + RECORDED_STEPS]
            loop.begin(part, (counts - begin).clamp(0, part.shape[1]), state)
            yield from self._finish(recorded)
            state = loop.state()
            for row, emitted in zip(tokens, loop.tokens.rows(0, rows), strict=True):
                row += emitted
        return tokens

    def _record(self, rows: int) -> _Recorded:
        window = self.window or window_for(rows, jumps=bool(self.heads.config.durations))
        loop = LabelLooping(self.heads, rows, RECORDED_STEPS, TIMES, window)
        if self.conditional and isinstance(self.capturer, CudaGraphCapturer):
            play = self.capturer.capture_repeated(loop.advance, loop.unfinished, MOST_BLOCKS)
        else:
            play = self.capturer(loop.advance)
        return _Recorded(loop, play, (_Flag(self.heads.device), _Flag(self.heads.device)))

    def _finish(self, recorded: _Recorded) -> Preemptible[None]:
        """Until all rows are done, and one block more, which is played before that is known."""
        last, next_one = recorded.flags
        recorded.play()
        last.ask(recorded.loop.unfinished)
        while not (self.conditional and not last.answer()):
            yield
            recorded.play()
            next_one.ask(recorded.loop.unfinished)
            if not last.answer():
                return
            last, next_one = next_one, last


def window_for(rows: int, *, jumps: bool) -> int:
    """As many steps as take no more time than one, and of networks that do not jump over blanks at least a few: they
    need fewer turns of the loop for it than those turns take longer."""
    return min(MOST_WINDOW, max(TILE // rows, 1 if jumps else LEAST_WINDOW))


class _Flag:
    """A value of the device, as the host learns it."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._value = torch.zeros((), dtype=torch.bool, pin_memory=pinned)
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]

    def ask(self, value: Tensor) -> None:
        self._value.copy_(value, non_blocking=True)
        if self._event:
            self._event.record(torch.cuda.current_stream(value.device))

    def answer(self) -> bool:
        if self._event:
            self._event.synchronize()
        return bool(self._value)
