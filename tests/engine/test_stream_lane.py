"""A stream gives the tokens of offline decoding, for any packets and any other streams in its steps.

A finalize emits the tokens before it, and changes none after it.
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
    Cancelled,
    Finished,
    Marker,
    SpeechStarted,
    StreamEvent,
    StreamOptions,
    StreamTokens,
    UtteranceEnded,
)
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, AttentionContext
from conure.models.network import Network
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.engine.finalized_streams import decode_with_finalizes
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
    """Runs the modules, or the model converted into `folder`."""
    runner: StreamRunner[Any] = TorchStreamRunner(net, LogMel(net.config.mel), torch.device("cpu"))
    if folder is not None:
        runner = CpuStreamRunner(folder, threads=1)
    return StreamLane(runner, load_silero(), slots)


def device_lane(net: Network, recorder: GraphCapturer, slots: int = 8) -> CudaLane:
    """With features computed as on a GPU."""
    front = LogMel(net.config.mel)
    front.log_mel = front.log_mel_reference  # type: ignore[method-assign]
    return CudaLane(CudaStreamModel(deepcopy(net), front, torch.device("cpu"), recorder=recorder), slots)


def offline(net: Network, samples: np.ndarray, chunk: int) -> list[tuple[int, int]]:
    """(token, step) of a clip."""
    return offline_with_finalizes(net, samples, [len(samples)], chunk)[0]


def offline_with_finalizes(
    net: Network, samples: np.ndarray, finalizes: Sequence[int], chunk: int
) -> list[list[tuple[int, int]]]:
    """The same for the audio before each finalize."""

    def encode(clip: np.ndarray) -> torch.Tensor | None:
        mel, frames = LogMel(net.config.mel)(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
        if int(frames) == 0:
            return None
        return net.encode(mel, frames, context=AttentionContext(LEFT, chunk - 1))[0]

    def whole(count: int) -> int:
        chunks = (ready_frames(count, net.config.mel) + LEAD_FRAMES) // (STEP_FRAMES * chunk)
        return chunks * chunk

    return decode_with_finalizes(net, samples, finalizes, encode, whole)


@dataclass
class ClientStream:
    """One stream: the audio it sends, with a finalize after each clip, and its events."""

    number: int
    chunk: int
    clips: list[np.ndarray]
    answers: list[StreamEvent] = field(default_factory=list)

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

    def decoded(self) -> list[list[tuple[int, float]]]:
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
    def finalizes(self) -> list[int]:
        """The sample at which each clip ends."""
        return np.cumsum([len(clip) for clip in self.clips]).tolist()

    def expected(self, net: Network) -> list[list[tuple[int, float]]]:
        return timed(offline_with_finalizes(net, self.samples, self.finalizes, self.chunk), self.finalizes)


def timed(decoded: list[list[tuple[int, int]]], finalizes: list[int]) -> list[list[tuple[int, float]]]:
    """Frames as seconds, between the finalizes where they were emitted."""
    bounds = zip(decoded, [0, *finalizes], finalizes, strict=False)
    return [
        [(token, round(max(min(step * 0.08, end / 16_000), begin / 16_000), 3)) for token, step in clip]
        for clip, begin, end in bounds
    ]


def converse(lane: StreamingLane, clients: list[ClientStream], seed: int) -> None:
    """Packets and steps in random order, until all streams have finished."""
    rng = random.Random(seed)
    queues = {client.number: client.sends(rng) for client in clients}
    by_number = {client.number: client for client in clients}
    for client in clients:
        assert lane.open(client.number, StreamOptions("m", latency_ms=80 * client.chunk))
    while len(lane):
        if waiting := [number for number, queue in queues.items() if queue]:
            number = rng.choice(waiting)
            packet = queues[number].pop(0)
            if isinstance(packet, np.ndarray):
                lane.push(number, packet, now=0.0)
            else:
                lane.finalize(number, packet, now=0.0)
        ready = lane.ready_work()
        if ready and (rng.random() < 0.5 or not waiting):
            kind = rng.choice(ready).kind
            some = [one.stream for one in ready if one.kind == kind and rng.random() < 0.8]
            answers = lane.run(some, now=0.0) if some else []
            for answer in answers if ready and rng.random() < 0.8 else [*answers, *lane.drain()]:
                by_number[answer.stream].answers.append(answer)
        elif not ready:
            for answer in lane.drain():
                by_number[answer.stream].answers.append(answer)


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    return (rng.standard_normal(samples) * rng.uniform(0.01, 0.3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("runner", ["torch", "onnx", "device", "recorded"])
def test_streams_give_the_tokens_of_offline_decoding(net: Network, converted: Path, runner: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 159, 160, 161, 1_279, 1_280, 5_000, 16_000, 20_001]
    clients = [
        ClientStream(number, chunk, [noise(rng, int(rng.choice(lengths))) for _ in range(int(rng.integers(1, 8)))])
        for number, chunk in enumerate([1, 2, 2, 4, 7, 14, 14, 1])
    ]
    if runner in ("device", "recorded"):
        streams = device_lane(net, no_capture if runner == "device" else TapeRecorder())
    else:
        streams = lane(net, folder=converted if runner == "onnx" else None)
    converse(streams, clients, seed)
    for client in clients:
        assert client.decoded() == client.expected(net)
        without_finalizes = Counter(token for token, _ in offline(net, client.samples, client.chunk))
        assert Counter(token for clip in client.decoded() for token, _ in clip) >= without_finalizes
        assert [type(a) for a in client.answers if isinstance(a, Marker | Finished)] == [
            *[Marker] * (len(client.clips) - 1),
            Finished,
        ]
    assert sum(len(clip) for client in clients for clip in client.decoded()) > 100
    assert streams.slots.free == 8


def test_a_slot_is_reset_for_its_next_stream(net: Network) -> None:
    rng = np.random.default_rng(5)
    streams = lane(net, slots=1)
    for number in range(4):
        client = ClientStream(number, 2, [noise(rng, 30_000)])
        converse(streams, [client], seed=number)
        assert client.decoded() == client.expected(net)


def test_all_slots_in_use(net: Network) -> None:
    streams = lane(net, slots=1)
    assert streams.open(1, StreamOptions("m"))
    assert not streams.open(2, StreamOptions("m"))
    assert streams.cancel(1) == [Cancelled(1)]
    assert streams.open(2, StreamOptions("m"))


def test_tokens_belong_to_their_utterance(net: Network) -> None:
    streams = lane(net)
    streams.open(0, StreamOptions("m", endpointing=Endpointing(longest=1.0)))
    streams.push(0, noise(np.random.default_rng(3), 80_000), now=0.0)
    streams.finalize(0, None, now=0.0)
    answers: list[StreamEvent] = []
    while streams.ready_work():
        answers += streams.run([0], now=0.0)
    boundaries = [answer for answer in answers if isinstance(answer, SpeechStarted | UtteranceEnded)]
    assert len(boundaries) >= 4
    assert all(isinstance(event, (SpeechStarted, UtteranceEnded)[index % 2]) for index, event in enumerate(boundaries))
    assert isinstance(answers[-1], Finished)
    begun = 0.0
    for answer in answers:
        if isinstance(answer, SpeechStarted):
            begun = answer.at
        elif isinstance(answer, StreamTokens):
            assert all(token.start >= begun for token in answer.tokens)
