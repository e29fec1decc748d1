"""Results of a stream chunk by chunk equal those of the whole clip, with any other streams in the batch."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conure.models.config import LEAD_FRAMES, AttentionContext
from conure.models.encoder_state import EncoderState
from conure.models.network import Network
from tests.models.networks import STREAMING, mel, network

PAST = 70


class Stream:
    """Mel of one stream, [T, F], chunk by chunk."""

    def __init__(self, whole: Tensor, chunk: int) -> None:
        self.whole, self.chunk, self.at = whole, 8 * chunk, 0
        self.encoded: list[Tensor] = []

    def next(self) -> tuple[Tensor, int]:
        lead = LEAD_FRAMES if self.at == 0 else 0
        part = self.whole[self.at : self.at + self.chunk - lead]
        self.at += len(part)
        chunk = torch.randn(self.chunk, self.whole.shape[1])  # frames that are not valid must not matter
        chunk[lead : lead + len(part)] = part
        return chunk, lead + len(part)

    @property
    def over(self) -> bool:
        return self.at >= len(self.whole)


def run_streams(net: Network, streams: list[Stream], chunk: int, seed: int) -> None:
    """Steps with all rows; rows that are not ready are idle. Streams start and pause at random."""
    rng = random.Random(seed)
    state = EncoderState.allocate(net.config.encoder, len(streams), PAST, net.encoder.pre_encode.out.weight)
    positions = net.encoder.positions(PAST + chunk - 1, 1 - chunk)
    while not all(stream.over for stream in streams):
        batch = torch.randn(len(streams), 8 * chunk, STREAMING.features)
        frames = torch.zeros(len(streams), dtype=torch.long)
        for row, stream in enumerate(streams):
            if not stream.over and rng.random() < 0.7:
                batch[row], frames[row] = stream.next()
        encoded, counts, state = net.encoder.step(batch, frames, state, positions)
        for row, stream in enumerate(streams):
            stream.encoded.append(encoded[row, : counts[row]])


@pytest.mark.parametrize("right", [0, 1, 3, 6, 13])
@torch.inference_mode()
def test_streamed_equals_whole_for_rows_of_any_age(right: int) -> None:
    context = AttentionContext(PAST, right)
    net = network(replace(STREAMING, contexts=(context,)))
    whole, lengths = mel([733, 500, 277, 9, 1, 64])
    streams = [Stream(whole[row, :length], right + 1) for row, length in enumerate(lengths.tolist())]
    run_streams(net, streams, right + 1, seed=right)
    expected, counts = net.encoder(whole, lengths, context)
    for row, stream in enumerate(streams):
        got = torch.cat(stream.encoded)
        assert got.shape[0] == counts[row]
        torch.testing.assert_close(got, expected[row, : counts[row]], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_rows_do_not_leak_into_each_other() -> None:
    net = network(STREAMING)
    whole, _ = mel([300, 300])
    alone = [Stream(whole[0], 2)]
    together = [Stream(whole[0], 2), Stream(whole[1], 2)]
    run_streams(net, alone, 2, seed=3)
    run_streams(net, together, 2, seed=4)
    torch.testing.assert_close(torch.cat(together[0].encoded), torch.cat(alone[0].encoded), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_new_stream_in_a_row_does_not_see_the_last() -> None:
    net = network(STREAMING)
    whole, _ = mel([16, 16])
    positions = net.encoder.positions(PAST + 1, -1)
    like = net.encoder.pre_encode.out.weight
    fresh = EncoderState.allocate(STREAMING, 1, PAST, like)
    chunk, frames = whole[:1], torch.tensor([16])
    expected, _, used = net.encoder.step(chunk, frames, fresh, positions)
    _, _, used = net.encoder.step(whole[1:], frames, used, positions)
    used.reset(torch.tensor([0]))
    again, _, _ = net.encoder.step(chunk, frames, used, positions)
    assert torch.equal(again, expected)


@torch.inference_mode()
def test_idle_rows_keep_their_state() -> None:
    net = network(STREAMING)
    whole, _ = mel([16])
    positions = net.encoder.positions(PAST + 1, -1)
    state = EncoderState.allocate(STREAMING, 1, PAST, net.encoder.pre_encode.out.weight)
    _, _, before = net.encoder.step(whole, torch.tensor([16]), state, positions)
    _, counts, after = net.encoder.step(torch.randn(1, 16, 32), torch.tensor([0]), before, positions)
    assert counts.tolist() == [0]
    for old, new in zip(before.__dict__.values(), after.__dict__.values(), strict=True):
        for a, b in zip(old, new, strict=True):
            assert torch.equal(a, b)


def test_gather_and_scatter_move_rows() -> None:
    state = EncoderState.allocate(STREAMING, 4, PAST, torch.zeros(()))
    rows = torch.tensor([2, 0])
    picked = state.gather(rows)
    picked.keys.fill_(7.0)
    picked.length.fill_(5)
    state.scatter(rows, picked)
    assert state.length.tolist() == [5, 0, 5, 0]
    assert state.keys[:, 2].eq(7).all()
    assert state.keys[:, 1].eq(0).all()
