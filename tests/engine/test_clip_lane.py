"""Urgent clips do not wait for those that came before them."""

from __future__ import annotations

import numpy as np
import torch

from conure.audio.features import LogMel
from conure.engine.clip_lane import ClipLane
from conure.engine.cost import Costs
from conure.engine.messages import Answer, Clip, Finished
from conure.engine.scheduler import ClipTurn, ClipWork, Scheduler
from conure.engine.torch_runner import TorchRunner
from tests.models.networks import OFFLINE, network


def lane() -> ClipLane:
    net = network(OFFLINE, ctc=True)
    return ClipLane(TorchRunner(net, LogMel(net.config.mel), torch.device("cpu")))


def clip(number: int, urgent: bool = False) -> Clip:
    return Clip(number, "small", np.zeros(16_000, np.float32), urgent=urgent)


def finish(clips: ClipLane, scheduler: Scheduler) -> list[Answer]:
    answers: list[Answer] = []
    while len(clips):
        turn = scheduler.choose(0.0, [], [], clips.ready())
        assert isinstance(turn, ClipTurn)
        answers += clips.run(turn.work)
    return answers


def test_an_urgent_clip_overtakes_a_batch_that_was_begun() -> None:
    clips, scheduler = lane(), Scheduler(Costs())
    clips.submit(clip(1), 0.0)
    clips.submit(clip(2), 0.0)
    (work,) = clips.ready()
    clips.run(work)
    clips.submit(clip(3, urgent=True), 1.0)
    ends = [answer.stream for answer in finish(clips, scheduler) if isinstance(answer, Finished)]
    assert ends == [3, 1, 2]


def test_urgent_and_other_clips_share_no_batch() -> None:
    clips = lane()
    for number in range(4):
        clips.submit(clip(number, urgent=number % 2 == 1), 0.0)
    urgent, other = clips.ready()
    assert isinstance(urgent, ClipWork)
    assert urgent.due is not None
    assert other.due is None
    assert urgent.size == other.size == 2


def test_a_batch_that_nobody_waits_for_is_given_up() -> None:
    clips = lane()
    clips.submit(clip(1), 0.0)
    clips.submit(clip(2, urgent=True), 0.0)
    for work in clips.ready():
        clips.run(work)
    clips.drop(2)
    assert [work.clip for work in clips.ready()] == [1]
    clips.drop(1)
    assert clips.ready() == []
    assert len(clips) == 0
