"""High-priority clips overtake others, and batches stay within the memory."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.messages import Clip, Failed, Finished, StreamEvent, StreamTokens
from conure.engine.scheduler import ClipStep, ClipWork, Scheduler
from conure.engine.step_costs import StepCosts
from tests.engine.scarce import ScarceRunner
from tests.models.networks import OFFLINE, network


def runner() -> TorchClipRunner:
    net = network(OFFLINE, ctc=True)
    return TorchClipRunner(net, LogMel(net.config.mel), torch.device("cpu"))


def lane() -> ClipLane:
    return ClipLane(runner())


def clip(number: int, urgent: bool = False, seconds: int = 1) -> Clip:
    return Clip(number, "small", np.zeros(seconds * 16_000, np.float32), high_priority=urgent)


def finish(clips: ClipLane, scheduler: Scheduler) -> list[StreamEvent]:
    answers: list[StreamEvent] = []
    while len(clips):
        step = scheduler.choose(0.0, [], [], clips.ready_work())
        assert isinstance(step, ClipStep)
        answers += clips.run(step.work)
    return answers


def test_a_high_priority_clip_overtakes_a_running_batch() -> None:
    clips, scheduler = lane(), Scheduler(StepCosts())
    clips.submit(clip(1), 0.0)
    clips.submit(clip(2), 0.0)
    (work,) = clips.ready_work()
    clips.run(work)
    clips.submit(clip(3, urgent=True), 1.0)
    ends = [answer.stream for answer in finish(clips, scheduler) if isinstance(answer, Finished)]
    assert ends == [3, 1, 2]


def test_priorities_share_no_batch() -> None:
    clips = lane()
    for number in range(4):
        clips.submit(clip(number, urgent=number % 2 == 1), 0.0)
    urgent, other = clips.ready_work()
    assert isinstance(urgent, ClipWork)
    assert urgent.due is not None
    assert other.due is None
    assert urgent.size == other.size == 2


def test_a_batch_without_clips_is_abandoned() -> None:
    clips = lane()
    clips.submit(clip(1), 0.0)
    clips.submit(clip(2, urgent=True), 0.0)
    for work in clips.ready_work():
        clips.run(work)
    clips.drop(2)
    assert [work.clip for work in clips.ready_work()] == [1]
    clips.drop(1)
    assert clips.ready_work() == []
    assert len(clips) == 0


def test_batches_shrink_to_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    scarce = ScarceRunner(runner(), 6.0)
    clips, scheduler = ClipLane(scarce, batch_seconds=30.0), Scheduler(StepCosts())
    for round_ in range(2):
        numbers = list(range(10 * round_, 10 * round_ + 10))
        for number in numbers:
            clips.submit(clip(number, seconds=2), 0.0)
        answers = finish(clips, scheduler)
        assert [answer.stream for answer in answers if isinstance(answer, StreamTokens)] == numbers
        assert len([answer for answer in answers if isinstance(answer, Finished)]) == 10
    assert scarce.tried[0] == 20.0
    assert clips.batch_seconds == 5.0
    assert max(scarce.tried[-5:]) <= 5.0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "20 s of clips" in warnings[0].getMessage()


def test_a_clip_that_does_not_fit_fails_alone() -> None:
    clips, scheduler = ClipLane(ScarceRunner(runner(), 6.0)), Scheduler(StepCosts())
    for number, seconds in enumerate((1, 9, 2)):
        assert clips.submit(clip(number, seconds=seconds), 0.0) == []
    answers = finish(clips, scheduler)
    assert {answer.stream for answer in answers if isinstance(answer, Finished)} == {0, 2}
    (failed,) = [answer for answer in answers if isinstance(answer, Failed)]
    assert (failed.stream, failed.code) == (1, "out_of_memory")
    assert "a clip of 9 s" in failed.message
    assert failed.hint


def test_batches_over_the_memory_limit_are_not_tried() -> None:
    """Memory for 12 s, of which a clip takes its duration and 2 s."""
    scarce = ScarceRunner(runner(), 12.0)
    clips, scheduler = ClipLane(scarce, max_rows=lambda seconds: int(12 // (seconds + 2))), Scheduler(StepCosts())
    (failed,) = clips.submit(clip(1, seconds=11), 0.0)
    assert isinstance(failed, Failed)
    assert (failed.stream, failed.code) == (1, "out_of_memory")
    for number in range(2, 8):
        assert clips.submit(clip(number, seconds=2), 0.0) == []
    answers = finish(clips, scheduler)
    assert len([answer for answer in answers if isinstance(answer, Finished)]) == 6
    assert scarce.tried == [6.0, 6.0]
