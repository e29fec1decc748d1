"""Chunks decoded with their context: a stream gives the tokens of the same windows offline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.audio.stream_features import ready_frames
from conure.engine.backends.torch_eager.window_runner import TorchWindowRunner
from conure.engine.lanes.window_lane import WindowLane, live_contexts
from conure.engine.messages import Finished, Marker
from conure.models.config import STEP_FRAMES, AttentionContext
from conure.models.network import Network
from conure.vad.silero import load_silero
from tests.engine.finalized_streams import decode_with_finalizes
from tests.engine.test_stream_lane import ClientStream, converse, noise, timed
from tests.models.networks import OFFLINE, network

CONTEXTS = {2: AttentionContext(9, 1, 1), 4: AttentionContext(9, 2, 2), 11: AttentionContext(9, 4, 7)}
"""By steps of latency."""


@pytest.fixture(scope="module", params=["NA", "per_feature"])
def net(request: pytest.FixtureRequest) -> Network:
    """A network that emits a token about every second frame."""
    encoder = replace(
        OFFLINE, style="chunked_limited_with_rc", contexts=(AttentionContext(), *CONTEXTS.values()), features=32
    )
    net = network(encoder, predictor_width=16, predictor_layers=2, joint_width=16, max_symbols=3)
    net.config = replace(net.config, mel=replace(net.config.mel, normalize=request.param))
    with torch.no_grad():
        net.joint.enc.weight.mul_(4)
        net.joint.head.weight.mul_(6)
        net.joint.head.bias[net.config.blank] += 3.0
    return net


def lane(net: Network, slots: int = 6) -> WindowLane:
    return WindowLane(TorchWindowRunner(net, LogMel(net.config.mel), torch.device("cpu")), load_silero(), slots)


@torch.inference_mode()
def encoded_in_windows(
    net: Network, samples: np.ndarray, context: AttentionContext, known: dict[tuple[int, int], torch.Tensor]
) -> torch.Tensor | None:
    """Encoder frames of a clip, window by window, [1, S, D]; those of a window of so many frames may be cached."""
    front = LogMel(net.config.mel)
    plain = LogMel(replace(net.config.mel, normalize="NA"))
    mel, frames = plain(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    total, chunk = int(frames), context.chunk or 0
    left = context.left // chunk * chunk
    steps = []
    for begin in range(0, -(-total // STEP_FRAMES), chunk):
        first = max(begin - left, 0)
        whole = (begin + chunk + context.right) * STEP_FRAMES
        # The frames at a clip's end are made of zeros beyond it.
        key = begin, whole if whole <= ready_frames(len(samples), net.config.mel) else -len(samples)
        if key not in known:
            window = mel[:, first * STEP_FRAMES : min(whole, total)]
            length = torch.tensor([window.shape[1]])
            encoded, counts = net.encode(front.normalize(window, length), length, context=replace(context, left=left))
            known[key] = encoded[:, begin - first : min(begin - first + chunk, int(counts))]
        steps.append(known[key])
    return torch.cat(steps, 1) if steps else None


@dataclass
class WindowClientStream(ClientStream):
    """Its `chunk` is its latency in encoder frames."""

    def expected(self, net: Network) -> list[list[tuple[int, float]]]:
        context = CONTEXTS[self.chunk]
        chunk = context.chunk or 0

        def whole(count: int) -> int:
            frames = ready_frames(count, net.config.mel) - context.right * STEP_FRAMES
            return max(frames // (STEP_FRAMES * chunk) * chunk, 0)

        known: dict[tuple[int, int], torch.Tensor] = {}

        def encode(clip: np.ndarray) -> torch.Tensor | None:
            return encoded_in_windows(net, clip, context, known)

        return timed(decode_with_finalizes(net, self.samples, self.finalizes, encode, whole), self.finalizes)


@pytest.mark.parametrize("seed", range(3))
def test_streams_give_the_tokens_of_their_windows(net: Network, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 159, 160, 1_279, 1_280, 1_281, 9_000, 17_000]
    clients: list[ClientStream] = [
        WindowClientStream(
            number, latency, [noise(rng, int(rng.choice(lengths))) for _ in range(int(rng.integers(1, 7)))]
        )
        for number, latency in enumerate([2, 4, 4, 11, 11, 2])
    ]
    streams = lane(net)
    converse(streams, clients, seed)
    for client in clients:
        assert client.decoded() == client.expected(net)
        ends = [type(answer) for answer in client.answers if isinstance(answer, Marker | Finished)]
        assert ends == [*[Marker] * (len(client.clips) - 1), Finished]
    assert sum(len(clip) for client in clients for clip in client.decoded()) > 50
    assert streams.slots.free == 6


def test_contexts_by_latency() -> None:
    offered = [AttentionContext(70, right, chunk) for chunk in (1, 2, 7, 13) for right in (0, 1, 2, 3, 4, 7, 13)]
    chosen = live_contexts([AttentionContext(), *offered])
    assert list(chosen)[:4] == [80, 160, 240, 320]
    assert chosen[160] == AttentionContext(70, 1, 1)
    assert chosen[1120] == AttentionContext(70, 7, 7)
    assert chosen[2080] == AttentionContext(65, 13, 13)


def test_latencies_are_those_of_the_checkpoint(net: Network) -> None:
    assert lane(net).latencies == (160, 320, 880)
