"""Recalibration in idle time: the machine may have been busy when the engine started.

Measures one step at a time, at intervals. Faster steps raise the capacity; slower ones are learned from the steps for
streams.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from conure.engine.calibration import (
    CHECK_ROWS,
    capacity_summary,
    discard_measurements,
    measure_step,
    rows_to_measure,
    with_capacity,
)
from conure.engine.calibration_cache import CalibrationCache
from conure.engine.calibration_checks import StepTimes, find_doubtful, make_consistent, with_step
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import CapacityChanged, EngineEvent
from conure.engine.plan import ModelInfo
from conure.engine.step_costs import StepCosts

__all__ = ["CalibratedModel", "Recalibration"]

log = logging.getLogger(__name__)

MIN_INTERVAL, MAX_INTERVAL = 20.0, 600.0
"""Seconds from one round to the next; doubled after each round that changes nothing."""
STEP_INTERVAL = 0.2
"""Seconds from one measurement of a round to the next, and until one is tried again that found no time."""
MIN_SPEEDUP = 0.85
"""Factor under the known time of a step, below which the new time is used."""
MEASUREMENT_STEPS = 4
"""Duration of a measurement, in steps: two steps and their preparation."""
MAX_SECONDS = 1.0
"""Of one measurement; a stream may start meanwhile."""


@dataclass(eq=False)
class CalibratedModel:
    info: ModelInfo
    lane: StreamingLane
    times: StepTimes
    cache: CalibrationCache | None = None


class Recalibration:
    """Cycles through all models and latencies: one small step each, and all sizes where that was faster."""

    def __init__(
        self,
        models: list[CalibratedModel],
        costs: StepCosts,
        now: float,
        measure: Callable[[StreamingLane, int, int], float] = measure_step,
    ) -> None:
        self._models = models
        self._costs = costs
        self._measure = measure
        self._interval = MIN_INTERVAL
        self._changed: list[CalibratedModel] = []
        self._remaining = deque(self._next_round())
        self.due = now + MIN_INTERVAL
        """The clock when the next measurement is due."""

    def next_seconds(self) -> float:
        """Expected duration of the next measurement."""
        model, latency, rows = self._remaining[0]
        return MEASUREMENT_STEPS * min(seconds * max(rows / size, 1) for size, seconds in model.times[latency])

    def postpone(self, now: float) -> None:
        """There is no time for the next measurement."""
        self.due = now + STEP_INTERVAL

    def run(self, now: float) -> list[EngineEvent]:
        """Measures the next step, unless it takes too long or has too few free slots; reports changes of capacity."""
        seconds = self.next_seconds()
        model, latency, rows = self._remaining.popleft()
        free = model.lane.capacity - len(model.lane)
        if seconds <= MAX_SECONDS and rows <= free and (rows <= CHECK_ROWS or not len(model.lane)):
            self._measure_again(model, latency, rows)
        if self._remaining:
            self.due = now + STEP_INTERVAL
            return []
        events = [event for model in self._changed if (event := self._apply(model))]
        self._interval = MIN_INTERVAL if self._changed else min(2 * self._interval, MAX_INTERVAL)
        self._changed, self._remaining, self.due = [], deque(self._next_round()), now + self._interval
        return events

    def _next_round(self) -> Iterator[tuple[CalibratedModel, int, int]]:
        for model in self._models:
            doubtful = set(find_doubtful(model.times))
            for latency, pairs in model.times.items():
                known_rows = [rows for rows, _ in pairs]
                check_rows = max(rows for rows in known_rows if rows <= CHECK_ROWS)
                for rows in rows_to_measure(model.lane, latency):
                    if rows == check_rows or rows not in known_rows or (latency, rows) in doubtful:
                        yield model, latency, rows

    def _measure_again(self, model: CalibratedModel, latency: int, rows: int) -> None:
        known = dict(model.times[latency]).get(rows)
        seconds = self._measure(model.lane, latency, rows)
        discard_measurements(model.lane)
        if known is None or seconds < known * MIN_SPEEDUP:
            sizes = [size for size in rows_to_measure(model.lane, latency) if size != rows]
            if model not in self._changed:
                self._changed.append(model)
            added = [(model, latency, size) for size in sizes]
            self._remaining.extend(work for work in added if work not in self._remaining)
            model.times = with_step(model.times, latency, rows, seconds)

    def _apply(self, model: CalibratedModel) -> EngineEvent | None:
        model.times = make_consistent(model.times)
        previous, model.info = model.info, with_capacity(model.info, model.lane, self._costs, model.times)
        if model.cache:
            model.cache.write(model.times)
        if model.info.capacity == previous.capacity:
            return None
        log.info("%s: recalibrated, capacity %s", model.info.name, capacity_summary(model.info))
        return CapacityChanged(model.info.name, model.info.capacity)
