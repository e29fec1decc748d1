"""The engine: one loop that owns the networks. Others ask; it answers.

    take requests ──> choose a turn ──> run it ──> deliver its answers

`ask` may be called from any thread. Answers are delivered on the loop's own, those of a turn together, in the order
in which they came to be; whoever takes them must not keep it waiting.

A request that cannot be met fails its stream by name. An error that nobody foresaw ends every stream and the loop:
what state the networks are in is then unknown.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping

from conure.engine.clip_lane import ClipLane
from conure.engine.cost import Costs
from conure.engine.messages import (
    ENDS,
    Answer,
    Audio,
    Cancel,
    Clip,
    Close,
    Configure,
    Failed,
    Finalize,
    Open,
    Opened,
    Request,
)
from conure.engine.scheduler import ClipTurn, Scheduler, StreamTurn
from conure.engine.stream_lane import StreamLane

__all__ = ["Engine"]

log = logging.getLogger(__name__)

MOST_BEHIND = 60.0
"""Seconds of audio that a stream may have waiting; what sends faster has to wait for answers."""
RETRY_AFTER = 5.0
CLIP_PATIENCE = 0.002
"""Seconds after which it is asked again whether a slice of a clip may be begun."""


class Engine:
    def __init__(
        self,
        lanes: Mapping[str, StreamLane],
        clips: Mapping[str, ClipLane],
        deliver: Callable[[list[Answer]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes = dict(lanes)
        self.clips = dict(clips)
        self.costs = Costs()
        self.scheduler = Scheduler(self.costs)
        self._deliver = deliver
        self._undelivered: list[Answer] = []
        self._clock = clock
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._streams: dict[int, StreamLane | ClipLane] = {}

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
                self._flush()
        except Exception:
            log.exception("the engine failed")
            self._fail_all("engine_failed", "the engine failed; its log tells why")
            raise
        self._fail_all("stopped", "the engine was stopped")

    def _take_requests(self) -> bool:
        """Handles all that wait, and waits for one where there is nothing to do; False when it was told to stop."""
        try:
            request = self._requests.get(timeout=self._patience())
            while request is not None:
                self._handle(request)
                request = self._requests.get_nowait()
        except queue.Empty:
            return True
        return False

    def _patience(self) -> float | None:
        """How long to wait for a request: until there is one, unless there is something else to do."""
        if any(lane.ready() for lane in self.lanes.values()):
            return 0.0
        return CLIP_PATIENCE if any(len(lane) for lane in self.clips.values()) else None

    def _handle(self, request: Request) -> None:
        if isinstance(request, Open):
            self._open(request)
        elif isinstance(request, Clip):
            self._submit(request)
        elif (lane := self._streams.get(request.stream)) is not None:
            if isinstance(request, Cancel):
                self._answer(lane.cancel(request.stream))
            elif isinstance(lane, StreamLane):
                self._tell(lane, request)
        # Otherwise it has failed or was cancelled, and was told so.

    def _tell(self, lane: StreamLane, request: Audio | Finalize | Close | Configure) -> None:
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
        lane.submit(request.stream, request.samples, request.prompt, self._clock())

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
        lanes = self.lanes.values()
        live = [work for lane in lanes for work in lane.ready()]
        expected = [work for lane in lanes for work in lane.expected()]
        clips = {work: lane for lane in self.clips.values() for work in lane.ready()}
        begin = self._clock()
        match self.scheduler.choose(begin, live, expected, list(clips)):
            case StreamTurn(kind, streams):
                lane, size = self._streams[streams[0]], len(streams)
                assert isinstance(lane, StreamLane)
                answers = lane.run(streams, begin)
            case ClipTurn(work):
                kind, size = work.kind, work.size
                answers = clips[work].run()
            case None:
                return
        seconds = self._clock() - begin
        self.costs.learn(kind, size, seconds)
        self._answer(answers)

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
        self._undelivered += answers

    def _flush(self) -> None:
        if self._undelivered:
            self._deliver(self._undelivered)
            self._undelivered = []
