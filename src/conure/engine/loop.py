"""The engine: one loop that owns the networks. Others ask; it answers.

    take requests ──> choose a turn ──> run it ──> deliver its answers

`ask` may be called from any thread. Answers are delivered on the loop's own, one by one, in the order in which they
came to be; whoever takes them must not keep it waiting.

A request that cannot be met fails its stream by name. An error that nobody foresaw ends every stream and the loop:
what state the networks are in is then unknown.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping

from conure.engine.cost import Costs
from conure.engine.messages import (
    ENDS,
    Answer,
    Audio,
    Cancel,
    Close,
    Configure,
    Failed,
    Finalize,
    Open,
    Opened,
    Request,
)
from conure.engine.scheduler import Scheduler, StreamTurn
from conure.engine.stream_lane import StreamLane

__all__ = ["Engine"]

log = logging.getLogger(__name__)

MOST_BEHIND = 60.0
"""Seconds of audio that a stream may have waiting; what sends faster has to wait for answers."""
RETRY_AFTER = 5.0


class Engine:
    def __init__(
        self,
        lanes: Mapping[str, StreamLane],
        deliver: Callable[[Answer], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes = dict(lanes)
        self.costs = Costs()
        self.scheduler = Scheduler(self.costs)
        self._deliver = deliver
        self._clock = clock
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._streams: dict[int, StreamLane] = {}

    def ask(self, request: Request) -> None:
        self._requests.put(request)

    def stop(self) -> None:
        """The loop ends after the turn it is in. Close streams before: those that go on are cut off."""
        self._requests.put(None)

    def run(self) -> None:
        """Until it is stopped."""
        try:
            while self._take_requests():
                self._turn()
        except Exception:
            log.exception("the engine failed")
            self._fail_all("engine_failed", "the engine failed; its log tells why")
            raise
        self._fail_all("stopped", "the engine was stopped")

    def _take_requests(self) -> bool:
        """Handles all that wait, and waits for one where there is nothing to do; False when it was told to stop."""
        idle = not any(lane.ready() for lane in self.lanes.values())
        try:
            request = self._requests.get(block=idle)
            while request is not None:
                self._handle(request)
                request = self._requests.get_nowait()
        except queue.Empty:
            return True
        return False

    def _handle(self, request: Request) -> None:
        if isinstance(request, Open):
            self._open(request)
            return
        lane = self._streams.get(request.stream)
        if lane is None:  # it has failed or was cancelled, and was told so
            return
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
            case Cancel(stream):
                self._answer(lane.cancel(stream))

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
        elif lane.open(request.stream, options):
            self._streams[request.stream] = lane
            self._answer([Opened(request.stream)])
        else:
            message = f"all {lane.slots.count} streams are taken"
            self._answer([Failed(request.stream, "busy", message, retry_after=RETRY_AFTER)])

    def _turn(self) -> None:
        live = [work for lane in self.lanes.values() for work in lane.ready()]
        turn = self.scheduler.choose(self._clock(), live, [], [])
        if not isinstance(turn, StreamTurn):
            return
        begin = self._clock()
        lane = self._streams[turn.streams[0]]
        answers = lane.run(turn.streams, begin)
        self.costs.learn(turn.kind, len(turn.streams), self._clock() - begin)
        self._answer(answers)

    def _fail_all(self, code: str, message: str) -> None:
        for stream, lane in list(self._streams.items()):
            lane.drop(stream)
            self._fail(stream, code, message)

    def _fail(self, stream: int, code: str, message: str, hint: str | None = None) -> None:
        self._answer([Failed(stream, code, message, hint)])

    def _answer(self, answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, ENDS):
                self._streams.pop(answer.stream, None)
            self._deliver(answer)
