"""The engine: one loop that owns the networks. Others ask; it answers.

    take requests ──> choose a turn ──> run it ──> deliver its answers

`ask` may be called from any thread. Answers are delivered on the loop's own, those of a turn together, in the order
in which they came to be; whoever takes them must not keep it waiting.

A request that cannot be met fails its stream by name. An error that nobody foresaw ends every stream and the loop:
what state the networks are in is then unknown. So does a device that fails, with a code of its own: another engine can
hear again what was heard on it.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from conure.engine.admission import MOST_LOAD, load
from conure.engine.backends.device import error_summary, is_device_failure
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.messages import (
    DEVICE_FAILED,
    ENDS,
    Answer,
    Audio,
    Cancel,
    Clip,
    Close,
    Configure,
    Failed,
    Finalize,
    Leave,
    Note,
    Open,
    Ping,
    Pong,
    Request,
    StepTaken,
    StreamOpened,
    connection_of,
)
from conure.engine.recalibration import Recalibration
from conure.engine.scheduler import ClipStep, Scheduler, StreamStep
from conure.engine.step_costs import StepCosts

__all__ = ["Engine"]

log = logging.getLogger(__name__)

MOST_BEHIND = 180.0
"""Seconds of audio that a stream may have waiting; what sends faster has to wait for answers."""
RETRY_AFTER = 5.0
STEP_MS = 80
SPARE_PATIENCE = 0.002
"""Seconds after which it is asked again whether a guess or a slice of a clip may be begun."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One that was begun."""

    lane: StreamingLane | ClipLane
    kind: Hashable
    latency: int | None
    size: int
    begun: float


class Engine:
    def __init__(
        self,
        lanes: Mapping[str, StreamingLane],
        clips: Mapping[str, ClipLane],
        deliver: Callable[[list[Answer | Note]], None],
        clock: Callable[[], float] = time.monotonic,
        costs: StepCosts | None = None,
        look: Recalibration | None = None,
    ) -> None:
        """`look`: what measures again what turns cost, where nobody needs the time."""
        self.lanes = dict(lanes)
        self.clips = dict(clips)
        self.costs = costs or StepCosts()
        self.scheduler = Scheduler(self.costs)
        self._look = look
        self._deliver = deliver
        self._undelivered: list[Answer | Note] = []
        self._clock = clock
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._streams: dict[int, StreamingLane | ClipLane] = {}
        self._names = {id(lane): name for name, lane in (*lanes.items(), *clips.items())}
        self._latencies: dict[int, int] = {}
        """Of live streams."""
        self._unsettled: _Turn | None = None
        """The last turn of streams, where answers of it are still to come."""

    def ask(self, request: Request) -> None:
        self._requests.put(request)

    def stop(self) -> None:
        """The loop ends after the turn it is in. Close streams before: those that go on are cut off."""
        self._requests.put(None)

    def run(self) -> None:
        """Until it is stopped. Raises what it could not go on after."""
        patience: float | None = 0.0
        try:
            while self._take_requests(patience):
                patience = self._turn()
                self._flush()
        except Exception as error:
            if is_device_failure(error):
                log.error("the device failed: %s", error_summary(error))
                self._fail_all(DEVICE_FAILED, f"the device failed: {error_summary(error)}")
            else:
                log.exception("the engine failed")
                self._fail_all("engine_failed", "the engine failed; its log tells why")
            raise
        self._fail_all("stopped", "the engine was stopped")

    def _take_requests(self, patience: float | None) -> bool:
        """Handles all that wait, and waits so long for one; False when it was told to stop."""
        try:
            request = self._requests.get(timeout=patience) if patience != 0.0 else self._requests.get_nowait()
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
            self._submit(request)
        elif isinstance(request, Ping):
            self._undelivered.append(Pong(request.number))
        elif isinstance(request, Leave):
            self._abandon(request.connection)
        elif (lane := self._streams.get(request.stream)) is not None:
            if isinstance(request, Cancel):
                self._answer(lane.cancel(request.stream))
            elif not isinstance(lane, ClipLane):
                self._tell(lane, request)
        # Otherwise it has failed or was cancelled, and was told so.

    def _abandon(self, connection: int) -> None:
        for stream, lane in list(self._streams.items()):
            if connection_of(stream) == connection:
                self._answer(lane.cancel(stream))

    def _tell(self, lane: StreamingLane, request: Audio | Finalize | Close | Configure) -> None:
        now = self._clock()
        match request:
            case Audio(stream, samples):
                lane.push(stream, samples, now)
                if lane.behind(stream) > MOST_BEHIND:
                    lane.drop(stream)
                    self._fail(stream, "too_fast", f"more than {MOST_BEHIND:g} s of audio wait to be transcribed")
            case Finalize(stream, marker):
                lane.finalize(stream, marker, now)
            case Close(stream):
                lane.finalize(stream, None, now)
            case Configure(stream, endpointing):
                lane.configure(stream, endpointing)

    def _submit(self, request: Clip) -> None:
        lane = self.clips.get(request.model)
        if lane is None:
            known = ", ".join(self.clips)
            message = f"no model {request.model!r} for clips"
            self._fail(request.stream, "unknown_model", message, f"there are: {known}")
            return
        self._streams[request.stream] = lane
        self._answer(lane.submit(request, self._clock()))

    def _open(self, request: Open) -> None:
        options = request.options
        lane = self.lanes.get(options.model)
        if lane is None:
            known = ", ".join(self.lanes)
            self._fail(request.stream, "unknown_model", f"no live model {options.model!r}", f"there are: {known}")
        elif options.latency_ms not in lane.latencies:
            known = ", ".join(map(str, lane.latencies))
            message = f"{options.model} has no latency of {options.latency_ms} ms"
            self._fail(request.stream, "bad_option", message, f"it has: {known}")
        elif self._is_firm(request) and (needed := self._load_with(lane, options.latency_ms)) > MOST_LOAD:
            message = f"{len(lane)} streams are open, and one more would take {needed:.0%} of the time there is"
            self._answer([Failed(request.stream, "busy", message, retry_after=RETRY_AFTER)])
        elif lane.open(request.stream, options, request.late):
            self._streams[request.stream] = lane
            self._latencies[request.stream] = options.latency_ms
            self._answer([StreamOpened(request.stream)])
        else:
            message = f"all {lane.capacity} streams are taken"
            self._answer([Failed(request.stream, "busy", message, retry_after=RETRY_AFTER)])

    def _is_firm(self, request: Open) -> bool:
        """Whether it may be refused for want of time: not the only stream, nor one that was taken before."""
        return bool(self._latencies) and not request.again

    def _load_with(self, lane: StreamingLane, latency_ms: int) -> float:
        """The part of the time that streams need, and one more of that kind."""
        kinds = [(self._streams[stream], latency // STEP_MS) for stream, latency in self._latencies.items()]
        streams = Counter([*kinds, (lane, latency_ms // STEP_MS)])
        return load(self.costs, streams, {kind: kind[1] * STEP_MS / 1000 for kind in streams})

    def _turn(self) -> float | None:
        """Runs what comes next. Tells how long to wait for requests then: for ever where only they can bring work."""
        lanes = self.lanes.values()
        live = [work for lane in lanes for work in lane.ready()]
        clips = {work: lane for lane in self.clips.values() for work in lane.ready()}
        begin = self._clock()
        spare = clips or any(work.spare or work.firm_from > begin for work in live)
        expected = [work for lane in lanes for work in lane.expected() if not work.is_silent(begin)] if spare else []
        match self.scheduler.choose(begin, live, expected, list(clips)):
            case StreamStep(kind, streams, size):
                lane = self._streams[streams[0]]
                assert not isinstance(lane, ClipLane)
                self._settle_others(lane)
                self._run_streams(lane, kind, streams, size)
            case ClipStep(work):
                self._settle_others(None)
                begin = self._clock()
                answers = clips[work].run(work)
                self._learn(_Turn(clips[work], work.kind, None, work.size, begin), answers)
            case None:
                if self._unsettled is None:
                    return SPARE_PATIENCE if live or clips else self._look_again(begin)
                self._settle_others(None)
        return 0.0

    def _look_again(self, now: float) -> float | None:
        """There is nothing to do. Tells how long to wait for requests."""
        look = self._look
        if look is None or now < look.due:
            return None if look is None else look.due - now
        expected = [work for lane in self.lanes.values() for work in lane.expected()]
        if self.scheduler.fits(now + look.seconds(), expected):
            self._undelivered += look.go_on(now)
        else:
            look.wait(now)
        return 0.0

    def _run_streams(self, lane: StreamingLane, kind: Hashable, streams: Sequence[int], size: int) -> None:
        """Where answers are left for the next turn, one is measured up to the next, or until it is settled."""
        turn = _Turn(lane, kind, self._latencies[streams[0]], size, self._clock())
        goes_on = self._unsettled is not None
        answers = lane.run(streams, turn.begun)
        if goes_on or lane.is_settled:
            self._learn(turn, answers)
        else:
            self._answer(answers)
        self._unsettled = None if lane.is_settled else turn

    def _settle_others(self, lane: StreamingLane | None) -> None:
        """Answers that are still to come, of any lane but this one."""
        turn = self._unsettled
        if turn is not None and turn.lane is not lane:
            assert not isinstance(turn.lane, ClipLane)
            self._unsettled = None
            self._learn(turn, turn.lane.settle())

    def _learn(self, turn: _Turn, answers: list[Answer]) -> None:
        seconds = self._clock() - turn.begun
        self.costs.learn(turn.kind, turn.size, seconds)
        self._answer(answers)
        self._undelivered.append(self._turned(turn.lane, turn.latency, turn.size, seconds))

    def _turned(self, lane: StreamingLane | ClipLane, latency: int | None, size: int, seconds: float) -> StepTaken:
        clips = sum(len(lane) for lane in self.clips.values())
        stages = {} if isinstance(lane, ClipLane) else lane.stages.take()
        return StepTaken(self._names[id(lane)], latency, size, seconds, len(self._latencies), clips, stages)

    def _fail_all(self, code: str, message: str) -> None:
        for stream, lane in list(self._streams.items()):
            lane.drop(stream)
            self._fail(stream, code, message)
        self._flush()

    def _fail(self, stream: int, code: str, message: str, hint: str | None = None) -> None:
        self._answer([Failed(stream, code, message, hint)])

    def _answer(self, answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, ENDS):
                self._streams.pop(answer.stream, None)
                self._latencies.pop(answer.stream, None)
        self._undelivered += answers

    def _flush(self) -> None:
        if self._undelivered:
            self._deliver(self._undelivered)
            self._undelivered = []
