"""Recorded loops give the tokens of the loop that looks after each of them."""

from __future__ import annotations

import pytest
import torch

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.cuda import graph_decoder as recorded_decoder
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


@pytest.mark.parametrize("recorded", [False, True], ids=["as it is", "recorded"])
@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@torch.inference_mode()
def test_recorded_equals_plain(durations: tuple[int, ...], recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_decoder, "RECORDED_STEPS", 37)
    net, recorder = heads(durations), TapeRecorder() if recorded else no_capture
    plain, decoder = TorchDecoder(net), GraphDecoder(net, recorder)
    for counts in ([90, 41, 0], [7], [37, 38, 1], [100, 3, 50, 74]):
        encoded, sizes = torch.randn(len(counts), max(counts), OFFLINE.width), torch.tensor(counts)
        expected, got = run_to_end(plain.decode(encoded, sizes)), run_to_end(decoder.decode(encoded, sizes))
        assert sum(map(len, expected)) > 2
        for mine, other in zip(got, expected, strict=True):
            assert [(t.id, t.step, t.duration) for t in mine] == [(t.id, t.step, t.duration) for t in other]
            sureness = [(t.log_probability, t.confidence) for t in mine]
            assert sureness == [pytest.approx((t.log_probability, t.confidence), abs=1e-5) for t in other]


@torch.inference_mode()
def test_batches_that_are_decoded_in_turns_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_decoder, "RECORDED_STEPS", 23)
    net = heads((0, 1, 2, 3, 4))
    plain, decoder = TorchDecoder(net), GraphDecoder(net, no_capture)
    batches = [(torch.randn(2, 90, OFFLINE.width), torch.tensor([90, 60])) for _ in range(3)]
    expected = [run_to_end(plain.decode(*batch)) for batch in batches]
    running = {index: decoder.decode(*batch) for index, batch in enumerate(batches)}
    found: dict[int, list[list[EmittedToken]]] = {}
    next(running.pop(2))  # one that is given up, whose loop another may have
    while running:
        for index, slices in list(running.items()):
            try:
                next(slices)
            except StopIteration as end:
                found[index] = end.value
                del running[index]
    for index, rows in found.items():
        assert [[token.id for token in row] for row in rows] == [[t.id for t in row] for row in expected[index]]


def test_the_window_is_as_wide_as_costs_nothing() -> None:
    rows = (1, 8, 16, 32, 64, 256)
    assert [window_for(count, jumps=True) for count in rows] == [8, 8, 4, 2, 1, 1]
    assert [window_for(count, jumps=False) for count in rows] == [8, 8, 4, 4, 4, 4]
