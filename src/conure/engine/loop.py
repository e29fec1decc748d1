"""The engine's loop: one thread that owns the networks, receives requests and delivers events.

    handle requests ──> choose a step ──> run it ──> deliver its events

`Engine.submit` may be called from any thread. Events are delivered on the loop's thread, those of a step together and
in order; `deliver` must not block.

A request that cannot be met fails its own stream. An unexpected error fails every stream and ends the loop, because the
networks' state is then unknown. A device failure does the same, with a distinct code: another engine can continue the
streams.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from conure.constants import ENCODER_FRAME_MS
from conure.engine.admission import MAX_LOAD, load
from conure.engine.backends.device import error_summary, is_device_failure
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import (
    DEVICE_FAILED,
    FINAL_EVENTS,
    Audio,
    Cancel,
    Clip,
    Close,
    Configure,
    Disconnect,
    EngineEvent,
    Failed,
    Finalize,
    Open,
    Ping,
    Pong,
    Request,
    StepTaken,
    StreamEvent,
    StreamOpened,
    connection_of,
)
from conure.engine.recalibration import Recalibration
from conure.engine.scheduler import ClipStep, Scheduler, StreamStep
from conure.engine.step_costs import StepCosts

__all__ = ["Engine"]

log = logging.getLogger(__name__)

MAX_BACKLOG = 180.0
"""Seconds of audio that a stream may have unprocessed; faster clients have to wait for events."""
RETRY_AFTER = 5.0
FILLER_POLL_INTERVAL = 0.002
"""Seconds until the scheduler is asked again whether a partial or a step of clips may start."""


@dataclass(frozen=True, slots=True)
class _RunningStep:
    lane: StreamingLane | ClipLane
    kind: Hashable
    latency: int | None
    size: int
    started_at: float


class Engine:
    def __init__(
        self,
        lanes: Mapping[str, StreamingLane],
        clips: Mapping[str, ClipLane],
        deliver: Callable[[list[StreamEvent | EngineEvent]], None],
        clock: Callable[[], float] = time.monotonic,
        costs: StepCosts | None = None,
        recalibration: Recalibration | None = None,
    ) -> None:
        """`recalibration` runs when there is no other work."""
        self.lanes = dict(lanes)
        self.clips = dict(clips)
        self.costs = costs or StepCosts()
        self.scheduler = Scheduler(self.costs)
        self._recalibration = recalibration
        self._deliver = deliver
        self._events: list[StreamEvent | EngineEvent] = []
        """Not delivered yet."""
        self._clock = clock
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._streams: dict[int, StreamingLane | ClipLane] = {}
        self._names = {id(lane): name for name, lane in (*lanes.items(), *clips.items())}
        self._latencies: dict[int, int] = {}
        """Of live streams."""
        self._pending_step: _RunningStep | None = None
        """The last step of streams, while some of its events are still to come."""

    def submit(self, request: Request) -> None:
        self._requests.put(request)

    def stop(self) -> None:
        """Ends the loop after the current step; streams that are still open fail."""
        self._requests.put(None)

    def run(self) -> None:
        """Runs until `stop`. Raises the error that ended the loop."""
        timeout: float | None = 0.0
        try:
            while self._handle_requests(timeout):
                timeout = self._run_next()
                self._flush()
        except Exception as error:
            if is_device_failure(error):
                log.error("the device failed: %s", error_summary(error))
                self._fail_all(DEVICE_FAILED, f"the device failed: {error_summary(error)}")
            else:
                log.exception("the engine failed")
                self._fail_all("engine_failed", "the engine failed; see its log")
            raise
        self._fail_all("stopped", "the engine was stopped")

    def _handle_requests(self, timeout: float | None) -> bool:
        """Handles all queued requests, waiting up to `timeout` for the first; False after `stop`."""
        try:
            request = self._requests.get(timeout=timeout) if timeout != 0.0 else self._requests.get_nowait()
            while request is not None:
                self._handle(request)
                request = self._requests.get_nowait()
        except queue.Empty:
            return True
        return False

    def _handle(self, request: Request) -> None:
        if isinstance(request, Open):
            self._open(request)
        elif isinstance(request, Clip):
            self._submit_clip(request)
        elif isinstance(request, Ping):
            self._events.append(Pong(request.number))
        elif isinstance(request, Disconnect):
            self._cancel_all(request.connection)
        elif (lane := self._streams.get(request.stream)) is not None:
            if isinstance(request, Cancel):
                self._emit(lane.cancel(request.stream))
            elif not isinstance(lane, ClipLane):
                self._handle_stream(lane, request)
        # Otherwise the stream has had its last event.

    def _cancel_all(self, connection: int) -> None:
        for stream, lane in list(self._streams.items()):
            if connection_of(stream) == connection:
                self._emit(lane.cancel(stream))

    def _handle_stream(self, lane: StreamingLane, request: Audio | Finalize | Close | Configure) -> None:
        now = self._clock()
        match request:
            case Audio(stream, samples):
                lane.push(stream, samples, now)
                if lane.backlog_seconds(stream) > MAX_BACKLOG:
                    lane.drop(stream)
                    self._fail(stream, "too_fast", f"more than {MAX_BACKLOG:g} s of audio are not transcribed yet")
            case Finalize(stream, marker):
                lane.finalize(stream, marker, now)
            case Close(stream):
                lane.finalize(stream, None, now)
            case Configure(stream, endpointing):
                lane.configure(stream, endpointing)

    def _submit_clip(self, request: Clip) -> None:
        lane = self.clips.get(request.model)
        if lane is None:
            known = ", ".join(self.clips)
            message = f"no model {request.model!r} for clips"
            self._fail(request.stream, "unknown_model", message, f"available: {known}")
            return
        self._streams[request.stream] = lane
        self._emit(lane.submit(request, self._clock()))

    def _open(self, request: Open) -> None:
        options = request.options
        lane = self.lanes.get(options.model)
        if lane is None:
            known = ", ".join(self.lanes)
            self._fail(request.stream, "unknown_model", f"no live model {options.model!r}", f"available: {known}")
        elif options.latency_ms not in lane.latencies:
            known = ", ".join(map(str, lane.latencies))
            message = f"{options.model} has no latency of {options.latency_ms} ms"
            self._fail(request.stream, "bad_option", message, f"available: {known}")
        elif self._needs_admission(request) and (needed := self._load_with(lane, options.latency_ms)) > MAX_LOAD:
            count = f"{len(lane)} streams are open"
            message = f"at capacity: {count}, and one more would raise the load to {needed:.1%} (limit {MAX_LOAD:.0%})"
            self._emit([Failed(request.stream, "busy", message, retry_after=RETRY_AFTER)])
        elif lane.open(request.stream, options, request.overdue_seconds):
            self._streams[request.stream] = lane
            self._latencies[request.stream] = options.latency_ms
            self._emit([StreamOpened(request.stream)])
        else:
            message = f"all {lane.capacity} streams are in use"
            self._emit([Failed(request.stream, "busy", message, retry_after=RETRY_AFTER)])

    def _needs_admission(self, request: Open) -> bool:
        """Whether load may refuse it: not the only stream, nor one that was admitted before."""
        return bool(self._latencies) and not request.is_replay

    def _load_with(self, lane: StreamingLane, latency_ms: int) -> float:
        """The load of all streams and one more of that kind."""
        kinds = [(self._streams[stream], latency // ENCODER_FRAME_MS) for stream, latency in self._latencies.items()]
        streams = Counter([*kinds, (lane, latency_ms // ENCODER_FRAME_MS)])
        return load(self.costs, streams, {kind: kind[1] * ENCODER_FRAME_MS / 1000 for kind in streams})

    def _run_next(self) -> float | None:
        """Runs the next step. Returns how long to wait for requests: None when only a request can bring work."""
        lanes = self.lanes.values()
        live = [work for lane in lanes for work in lane.ready_work()]
        clips = {work: lane for lane in self.clips.values() for work in lane.ready_work()}
        now = self._clock()
        has_fillers = clips or any(work.is_optional or work.realtime_from > now for work in live)
        expected = [work for lane in lanes for work in lane.expected_work()] if has_fillers else []
        expected = [work for work in expected if not work.is_silent(now)]
        match self.scheduler.choose(now, live, expected, list(clips)):
            case StreamStep(kind, streams, size):
                lane = self._streams[streams[0]]
                assert not isinstance(lane, ClipLane)
                self._drain_pending(except_lane=lane)
                self._run_streams(lane, kind, streams, size)
            case ClipStep(work):
                self._drain_pending()
                started_at = self._clock()
                events = clips[work].run(work)
                self._record(_RunningStep(clips[work], work.kind, None, work.size, started_at), events)
            case None:
                if self._pending_step is None:
                    return FILLER_POLL_INTERVAL if live or clips else self._run_idle(now)
                self._drain_pending()
        return 0.0

    def _run_idle(self, now: float) -> float | None:
        """Recalibrates, if that is due and no stream needs the time. Returns how long to wait for requests."""
        recalibration = self._recalibration
        if recalibration is None or now < recalibration.due:
            return None if recalibration is None else recalibration.due - now
        expected = [work for lane in self.lanes.values() for work in lane.expected_work()]
        if self.scheduler.meets_deadlines(now + recalibration.next_seconds(), expected):
            self._events += recalibration.run(now)
        else:
            recalibration.postpone(now)
        return 0.0

    def _run_streams(self, lane: StreamingLane, kind: Hashable, streams: Sequence[int], size: int) -> None:
        """A step whose events are left to the next one is timed until the next one, or until it is drained."""
        step = _RunningStep(lane, kind, self._latencies[streams[0]], size, self._clock())
        follows_pending = self._pending_step is not None
        events = lane.run(streams, step.started_at)
        if follows_pending or lane.is_drained:
            self._record(step, events)
        else:
            self._emit(events)
        self._pending_step = None if lane.is_drained else step

    def _drain_pending(self, except_lane: StreamingLane | None = None) -> None:
        """Waits for the pending events of the last step, unless it is `except_lane`'s."""
        step = self._pending_step
        if step is not None and step.lane is not except_lane:
            assert not isinstance(step.lane, ClipLane)
            self._pending_step = None
            self._record(step, step.lane.drain())

    def _record(self, step: _RunningStep, events: list[StreamEvent]) -> None:
        seconds = self._clock() - step.started_at
        self.costs.record(step.kind, step.size, seconds)
        self._emit(events)
        self._events.append(self._statistics(step.lane, step.latency, step.size, seconds))

    def _statistics(self, lane: StreamingLane | ClipLane, latency: int | None, size: int, seconds: float) -> StepTaken:
        clips = sum(len(lane) for lane in self.clips.values())
        stages = {} if isinstance(lane, ClipLane) else lane.stages.collect()
        return StepTaken(self._names[id(lane)], latency, size, seconds, len(self._latencies), clips, stages)

    def _fail_all(self, code: str, message: str) -> None:
        for stream, lane in list(self._streams.items()):
            lane.drop(stream)
            self._fail(stream, code, message)
        self._flush()

    def _fail(self, stream: int, code: str, message: str, hint: str | None = None) -> None:
        self._emit([Failed(stream, code, message, hint)])

    def _emit(self, events: list[StreamEvent]) -> None:
        for event in events:
            if isinstance(event, FINAL_EVENTS):
                self._streams.pop(event.stream, None)
                self._latencies.pop(event.stream, None)
        self._events += events

    def _flush(self) -> None:
        if self._events:
            self._deliver(self._events)
            self._events = []
