"""Measures again what turns cost, in time that nobody needs: the machine may have been busy when the engine started.

One turn is made at a time, now and then. Where turns turn out to be quicker, there is room for more streams; that there
is less room is learned from turns in earnest.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from conure.engine.calibration import FEW_ROWS, give_back, planned, sizes_of, told_room, turn
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.calibration_checks import Turns, doubtful, sound, with_turn
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import Note, QueueRoom
from conure.engine.plan import ModelInfo
from conure.engine.step_costs import StepCosts

__all__ = ["CalibratedModel", "Recalibration"]

log = logging.getLogger(__name__)

FIRST, LONGEST = 20.0, 600.0
"""Seconds to the first look, and at most to the next one: twice as far where a look finds nothing new."""
SOON = 0.2
"""Seconds from one turn of a look to the next, and from one time to the next at which there was no room for it."""
QUICKER = 0.85
"""Of what a turn took, from which on it is worth to tell of it."""
WORK = 4
"""Turns that one measurement is as long as: two turns, and what is made ready for them."""
MOST_SECONDS = 1.0
"""Of one measurement; somebody may begin to speak meanwhile."""


@dataclass(eq=False)
class CalibratedModel:
    """A model and what its turns were measured to cost."""

    card: ModelInfo
    lane: StreamingLane
    turns: Turns
    kept: CalibrationCache | None = None


class Recalibration:
    """Goes round all models and latencies: one small turn each, and where that was quicker all sizes there are."""

    def __init__(
        self,
        models: list[CalibratedModel],
        costs: StepCosts,
        now: float,
        take: Callable[[StreamingLane, int, int], float] = turn,
    ) -> None:
        self._models = models
        self._costs = costs
        self._take = take
        self._pause = FIRST
        self._changed: list[CalibratedModel] = []
        self._left = deque(self._round())
        self.due = now + FIRST
        """When it is to be gone on with."""

    def seconds(self) -> float:
        """That its next turn takes."""
        model, latency, rows = self._left[0]
        return WORK * min(seconds * max(rows / size, 1) for size, seconds in model.turns[latency])

    def wait(self, now: float) -> None:
        """There is no time for it."""
        self.due = now + SOON

    def go_on(self, now: float) -> list[Note]:
        """Makes a turn, where there are rows for it and it is not too long; what is to be told then."""
        takes = self.seconds()
        model, latency, rows = self._left.popleft()
        free = model.lane.capacity - len(model.lane)
        if takes <= MOST_SECONDS and rows <= free and (rows <= FEW_ROWS or not len(model.lane)):
            self._measure(model, latency, rows)
        if self._left:
            self.due = now + SOON
            return []
        told = [note for model in self._changed if (note := self._learned(model))]
        self._pause = FIRST if self._changed else min(2 * self._pause, LONGEST)
        self._changed, self._left, self.due = [], deque(self._round()), now + self._pause
        return told

    def _round(self) -> Iterator[tuple[CalibratedModel, int, int]]:
        for model in self._models:
            doubts = set(doubtful(model.turns))
            for latency, pairs in model.turns.items():
                known = [rows for rows, _ in pairs]
                few = max(rows for rows in known if rows <= FEW_ROWS)
                for rows in sizes_of(model.lane, latency):
                    if rows == few or rows not in known or (latency, rows) in doubts:
                        yield model, latency, rows

    def _measure(self, model: CalibratedModel, latency: int, rows: int) -> None:
        before = dict(model.turns[latency]).get(rows)
        seconds = self._take(model.lane, latency, rows)
        give_back(model.lane)
        if before is None or seconds < before * QUICKER:
            others = [size for size in sizes_of(model.lane, latency) if size != rows]
            if model not in self._changed:
                self._changed.append(model)
            self._left.extend((model, latency, size) for size in others if (model, latency, size) not in self._left)
            model.turns = with_turn(model.turns, latency, rows, seconds)

    def _learned(self, model: CalibratedModel) -> Note | None:
        model.turns = sound(model.turns)
        before, model.card = model.card, planned(model.card, model.lane, self._costs, model.turns)
        if model.kept:
            model.kept.write(model.turns)
        if model.card.capacity == before.capacity:
            return None
        log.info("%s was measured again: room for %s", model.card.name, told_room(model.card))
        return QueueRoom(model.card.name, model.card.capacity)
