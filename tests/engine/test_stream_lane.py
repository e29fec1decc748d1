"""What a stream hears is what the network hears offline: however audio arrives, whoever else is in the turn.

A cut makes a final of what came before it, and changes nothing of what is heard after it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.audio.stream_features import ready_frames
from conure.engine.backends.cpu.stream_runner import CpuStreamRunner
from conure.engine.backends.cuda.graph_capture import GraphCapturer, no_capture
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.stream_runner import StreamRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.convert.convert import convert
from conure.engine.lanes.chunk_lane import ChunkLane
from conure.engine.lanes.cuda_lane import CudaLane
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import (
    Answer,
    Cancelled,
    Finished,
    Marker,
    SpeechStarted,
    StreamOptions,
    StreamTokens,
    UtteranceEnded,
)
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, AttentionContext
from conure.models.network import Network
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.engine.cut_streams import decode_with_cuts
from tests.engine.live_model import LEFT, talking_network
from tests.engine.tape import TapeRecorder
from tests.models.networks import checkpoint_of


@pytest.fixture(scope="module")
def net() -> Network:
    return talking_network()


@pytest.fixture(scope="module")
def converted(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert(checkpoint_of(net), folder, "fp32")
    return folder


def lane(net: Network, slots: int = 8, folder: Path | None = None) -> ChunkLane:
    """On the modules, or on what was converted of them into `folder`."""
    runner: StreamRunner[Any] = TorchStreamRunner(net, LogMel(net.config.mel), torch.device("cpu"))
    if folder is not None:
        runner = CpuStreamRunner(folder, threads=1)
    return StreamLane(runner, load_silero(), slots)


def device_lane(net: Network, recorder: GraphCapturer, slots: int = 8) -> CudaLane:
    """With features as a device makes them."""
    front = LogMel(net.config.mel)
    front.log_mel = front.log_mel_reference  # type: ignore[method-assign]
    return CudaLane(CudaStreamModel(deepcopy(net), front, torch.device("cpu"), recorder=recorder), slots)


def offline(net: Network, samples: np.ndarray, chunk: int) -> list[tuple[int, int]]:
    """(token, step) of a clip."""
    return offline_with_cuts(net, samples, [len(samples)], chunk)[0]


def offline_with_cuts(
    net: Network, samples: np.ndarray, cuts: Sequence[int], chunk: int
) -> list[list[tuple[int, int]]]:
    """The same of what comes before each cut."""

    def encode(clip: np.ndarray) -> torch.Tensor | None:
        mel, frames = LogMel(net.config.mel)(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
        if int(frames) == 0:
            return None
        return net.encode(mel, frames, context=AttentionContext(LEFT, chunk - 1))[0]

    def whole(count: int) -> int:
        chunks = (ready_frames(count, net.config.mel) + LEAD_FRAMES) // (STEP_FRAMES * chunk)
        return chunks * chunk

    return decode_with_cuts(net, samples, cuts, encode, whole)


@dataclass
class Caller:
    """One stream: what it will send, with a cut after each clip, and what it was told."""

    number: int
    chunk: int
    clips: list[np.ndarray]
    answers: list[Answer] = field(default_factory=list)

    def sends(self, rng: random.Random) -> list[np.ndarray | int | None]:
        """Packets, markers after each clip but the last, and None for the end."""
        packets: list[np.ndarray | int | None] = []
        for index, clip in enumerate(self.clips):
            at = 0
            while at < len(clip):
                size = rng.choice([1, 7, 160, 333, 1_280, 5_000, 20_000])
                packets.append(clip[at : at + size])
                at += size
            packets.append(index)
        packets[-1] = None
        return packets

    def heard(self) -> list[list[tuple[int, float]]]:
        """(token, start) of each clip."""
        clips: list[list[tuple[int, float]]] = [[]]
        for answer in self.answers:
            if isinstance(answer, StreamTokens):
                clips[-1] += [(token.id, token.start) for token in answer.tokens]
            elif isinstance(answer, Marker):
                clips.append([])
        return clips

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.clips)

    @property
    def cuts(self) -> list[int]:
        """The sample at which each clip ends."""
        return np.cumsum([len(clip) for clip in self.clips]).tolist()

    def expected(self, net: Network) -> list[list[tuple[int, float]]]:
        return timed(offline_with_cuts(net, self.samples, self.cuts, self.chunk), self.cuts)


def timed(heard: list[list[tuple[int, int]]], cuts: list[int]) -> list[list[tuple[int, float]]]:
    """Steps as seconds, between the cuts where they were told."""
    bounds = zip(heard, [0, *cuts], cuts, strict=False)
    return [
        [(token, round(max(min(step * 0.08, end / 16_000), begin / 16_000), 3)) for token, step in clip]
        for clip, begin, end in bounds
    ]


def converse(lane: StreamingLane, callers: list[Caller], seed: int) -> None:
    """Packets and turns in any order, until all streams have finished."""
    rng = random.Random(seed)
    queues = {caller.number: caller.sends(rng) for caller in callers}
    by_number = {caller.number: caller for caller in callers}
    for caller in callers:
        assert lane.open(caller.number, StreamOptions("m", latency_ms=80 * caller.chunk))
    while len(lane):
        if waiting := [number for number, queue in queues.items() if queue]:
            number = rng.choice(waiting)
            packet = queues[number].pop(0)
            if isinstance(packet, np.ndarray):
                lane.push(number, packet, now=0.0)
            else:
                lane.finalize(number, packet, now=0.0)
        ready = lane.ready()
        if ready and (rng.random() < 0.5 or not waiting):
            kind = rng.choice(ready).kind
            some = [one.stream for one in ready if one.kind == kind and rng.random() < 0.8]
            answers = lane.run(some, now=0.0) if some else []
            for answer in answers if ready and rng.random() < 0.8 else [*answers, *lane.settle()]:
                by_number[answer.stream].answers.append(answer)
        elif not ready:
            for answer in lane.settle():
                by_number[answer.stream].answers.append(answer)


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    return (rng.standard_normal(samples) * rng.uniform(0.01, 0.3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("runner", ["torch", "onnx", "device", "recorded"])
def test_streams_hear_what_is_heard_offline(net: Network, converted: Path, runner: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 159, 160, 161, 1_279, 1_280, 5_000, 16_000, 20_001]
    callers = [
        Caller(number, chunk, [noise(rng, int(rng.choice(lengths))) for _ in range(int(rng.integers(1, 8)))])
        for number, chunk in enumerate([1, 2, 2, 4, 7, 14, 14, 1])
    ]
    if runner in ("device", "recorded"):
        streams = device_lane(net, no_capture if runner == "device" else TapeRecorder())
    else:
        streams = lane(net, folder=converted if runner == "onnx" else None)
    converse(streams, callers, seed)
    for caller in callers:
        assert caller.heard() == caller.expected(net)
        without_cuts = Counter(token for token, _ in offline(net, caller.samples, caller.chunk))
        assert Counter(token for clip in caller.heard() for token, _ in clip) >= without_cuts
        assert [type(a) for a in caller.answers if isinstance(a, Marker | Finished)] == [
            *[Marker] * (len(caller.clips) - 1),
            Finished,
        ]
    assert sum(len(clip) for caller in callers for clip in caller.heard()) > 100
    assert streams.slots.free == 8


def test_a_row_is_clean_for_its_next_tenant(net: Network) -> None:
    rng = np.random.default_rng(5)
    streams = lane(net, slots=1)
    for number in range(4):
        caller = Caller(number, 2, [noise(rng, 30_000)])
        converse(streams, [caller], seed=number)
        assert caller.heard() == caller.expected(net)


def test_no_row_for_one_more(net: Network) -> None:
    streams = lane(net, slots=1)
    assert streams.open(1, StreamOptions("m"))
    assert not streams.open(2, StreamOptions("m"))
    assert streams.cancel(1) == [Cancelled(1)]
    assert streams.open(2, StreamOptions("m"))


def test_utterances_take_turns_and_own_what_was_heard(net: Network) -> None:
    streams = lane(net)
    streams.open(0, StreamOptions("m", endpointing=Endpointing(longest=1.0)))
    streams.push(0, noise(np.random.default_rng(3), 80_000), now=0.0)
    streams.finalize(0, None, now=0.0)
    answers: list[Answer] = []
    while streams.ready():
        answers += streams.run([0], now=0.0)
    turns = [answer for answer in answers if isinstance(answer, SpeechStarted | UtteranceEnded)]
    assert len(turns) >= 4
    assert all(isinstance(turn, (SpeechStarted, UtteranceEnded)[index % 2]) for index, turn in enumerate(turns))
    assert isinstance(answers[-1], Finished)
    begun = 0.0
    for answer in answers:
        if isinstance(answer, SpeechStarted):
            begun = answer.at
        elif isinstance(answer, StreamTokens):
            assert all(token.start >= begun for token in answer.tokens)
