"""Captured decoding loops emit the same tokens as the loop that synchronises after each token."""

from __future__ import annotations

import pytest
import torch

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.cuda import graph_decoder
from conure.engine.backends.cuda.graph_capture import no_capture
from conure.engine.backends.cuda.graph_decoder import GraphDecoder, window_for
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.models.network import Heads
from conure.models.preemptible import run_to_end
from tests.engine.tape import TapeRecorder
from tests.models.networks import OFFLINE, network


def heads(durations: tuple[int, ...]) -> Heads:
    shape = {"predictor_width": 16, "predictor_layers": 2, "joint_width": 16, "durations": durations}
    net = network(OFFLINE, 0, **shape, max_symbols=3)
    with torch.no_grad():
        net.joint.enc.weight.mul_(4)
        net.joint.head.weight.mul_(6)
        net.joint.head.bias[net.config.blank] += 2
    return net.requires_grad_(False)


@pytest.mark.parametrize("is_captured", [False, True], ids=["plain", "captured"])
@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@torch.inference_mode()
def test_graph_decoder_matches_torch_decoder(
    durations: tuple[int, ...], is_captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_decoder, "GRAPH_STEPS", 37)
    net, capturer = heads(durations), TapeRecorder() if is_captured else no_capture
    plain, decoder = TorchDecoder(net), GraphDecoder(net, capturer)
    for counts in ([90, 41, 0], [7], [37, 38, 1], [100, 3, 50, 74]):
        encoded, sizes = torch.randn(len(counts), max(counts), OFFLINE.width), torch.tensor(counts)
        expected, got = run_to_end(plain.decode(encoded, sizes)), run_to_end(decoder.decode(encoded, sizes))
        assert sum(map(len, expected)) > 2
        for got_row, expected_row in zip(got, expected, strict=True):
            assert [(t.id, t.step, t.duration) for t in got_row] == [(t.id, t.step, t.duration) for t in expected_row]
            scores = [(t.log_probability, t.confidence) for t in got_row]
            assert scores == [pytest.approx((t.log_probability, t.confidence), abs=1e-5) for t in expected_row]


@torch.inference_mode()
def test_interleaved_batches_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_decoder, "GRAPH_STEPS", 23)
    net = heads((0, 1, 2, 3, 4))
    plain, decoder = TorchDecoder(net), GraphDecoder(net, no_capture)
    batches = [(torch.randn(2, 90, OFFLINE.width), torch.tensor([90, 60])) for _ in range(3)]
    expected = [run_to_end(plain.decode(*batch)) for batch in batches]
    running = {index: decoder.decode(*batch) for index, batch in enumerate(batches)}
    found: dict[int, list[list[EmittedToken]]] = {}
    next(running.pop(2))  # cancelled: its loop may be reused
    while running:
        for index, slices in list(running.items()):
            try:
                next(slices)
            except StopIteration as end:
                found[index] = end.value
                del running[index]
    for index, rows in found.items():
        assert [[token.id for token in row] for row in rows] == [[t.id for t in row] for row in expected[index]]


def test_window_sizes() -> None:
    rows = (1, 8, 16, 32, 64, 256)
    assert [window_for(count, has_durations=True) for count in rows] == [8, 8, 4, 2, 1, 1]
    assert [window_for(count, has_durations=False) for count in rows] == [8, 8, 4, 4, 4, 4]
