"""A step does not synchronize with the device, allocates no memory once captured, and loses no token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.lanes.cuda_lane import CudaLane, step_sizes
from conure.engine.messages import Finished, StreamOptions, StreamTokens
from conure.models.network import Network
from tests.engine.live_model import talking_network
from tests.engine.tape import Tape, TapeRecorder, places_of
from tests.engine.test_stream_lane import device_lane, offline

NO_ROOM_GIVEN = {"__and__", "arange", "conv1d", "conv2d", "flatten", "layer_norm", "lstm_cell", "pad", "to", "where"}
NO_ROOM_GIVEN |= {"zeros_like"}
"""Operations that torch have no output argument on the CPU. A CUDA graph fixes their memory, too."""


class NewMemory(TorchDispatchMode):
    """Collects the operations that allocate memory for their results."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not places_of(result) <= places_of((args, kwargs)):
            self.made.add(func.overloadpacket.__name__)
        return result


def run_two_streams(lane: CudaLane, steps: int) -> None:
    """Two streams with different chunk sizes, in alternating steps."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        for number, chunk in ((0, 1), (1, 2)):
            lane.push(number, rng.standard_normal(1280 * chunk).astype(np.float32), 0.0)
            if any(work.stream == number for work in lane.ready_work()):
                lane.run([number], 0.0)


def test_a_captured_step_allocates_no_memory() -> None:
    lane = device_lane(talking_network(), TapeRecorder())
    for number, chunk in ((0, 1), (1, 2)):
        lane.open(number, StreamOptions("m", latency_ms=80 * chunk))
    run_two_streams(lane, 3)
    with NewMemory() as memory:
        run_two_streams(lane, 5)
        lane.drain()
    assert memory.made <= NO_ROOM_GIVEN | {"detach", "from_numpy", "lift_fresh"}  # the last of the host's own arrays


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: bool((x > 0).any()),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: x[x > 0],
    ],
    ids=["item", "nonzero", "bool", "tensor of a list", "mask"],
)
@torch.inference_mode()
def test_synchronizing_or_copying_steps_cannot_be_captured(work: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises((AssertionError, RuntimeError)), Tape():
        work(torch.ones(2))


@pytest.fixture
def chatterbox() -> Network:
    """Emits as many tokens as allowed at each frame."""
    net = talking_network()
    with torch.no_grad():
        net.joint.head.bias[net.config.blank] = -1e4
    return net


def test_more_tokens_than_the_first_loop_steps(chatterbox: Network) -> None:
    lane, samples = device_lane(chatterbox, no_capture), np.random.default_rng(1).standard_normal(20_000)
    lane.open(0, StreamOptions("m", latency_ms=160))
    lane.push(0, samples.astype(np.float32), 0.0)
    lane.finalize(0, None, 0.0)
    answers = []
    while len(lane):
        ready = [work.stream for work in lane.ready_work()]
        answers += lane.run(ready, 0.0) if ready else lane.drain()
    tokens = [token.id for answer in answers if isinstance(answer, StreamTokens) for token in answer.tokens]
    assert tokens == [token for token, _ in offline(chatterbox, samples.astype(np.float32), 2)]
    assert len(tokens) == 3 * 17
    assert isinstance(answers[-1], Finished)


def test_step_sizes_hold_all_slots_within_the_limit() -> None:
    assert step_sizes(1, 1) == [1]
    assert step_sizes(1, 9) == [1, 8, 32]
    assert step_sizes(1, 5000)[-1] == 2048
    assert step_sizes(14, 5000)[-1] == 256
    assert step_sizes(14, 100) == [1, 8, 32, 64, 128]


def test_a_stream_cancelled_in_flight_gets_no_events() -> None:
    lane = device_lane(talking_network(), no_capture, slots=1)
    lane.open(0, StreamOptions("m", latency_ms=80))
    lane.push(0, np.random.default_rng(2).standard_normal(1280).astype(np.float32), 0.0)
    assert lane.run([0], 0.0) == []
    assert not lane.is_drained
    lane.cancel(0)
    assert lane.open(1, StreamOptions("m", latency_ms=80))
    assert lane.drain() == []
    assert lane.is_drained
