"""Uploaded batches keep their order and equal the batches padded on the host."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.engine.backends.padding import pad, padded_batches
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.lanes.clips import transcribe_clips
from conure.engine.prefetch import prefetch
from tests.models.networks import OFFLINE, network

DEVICES = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)


def clip(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal(length).astype(np.float32)


def test_short_clips_are_padded_with_silence() -> None:
    clips = [clip(2000), clip(40)]
    samples, lengths = pad(clips)
    assert lengths.tolist() == [2000, 1600]
    assert samples[0].tolist() == clips[0].tolist()
    assert samples[1, :40].tolist() == clips[1].tolist()
    assert not samples[1, 40:].any()


@DEVICES
def test_batches_keep_their_order(device: str) -> None:
    batches = [[clip(3000 + n), clip(1700)] for n in range(20)]
    uploaded = [tuple(map(torch.as_tensor, padded)) for padded in padded_batches(torch.device(device), batches)]
    assert len(uploaded) == len(batches)
    for clips, (samples, lengths) in zip(batches, uploaded, strict=True):
        expected, expected_lengths = map(torch.from_numpy, pad(clips))
        assert samples.device.type == lengths.device.type == device
        assert torch.equal(samples.cpu(), expected)
        assert torch.equal(lengths.cpu(), expected_lengths)


@DEVICES
def test_tokens_are_in_the_order_of_the_clips(device: str) -> None:
    net = network(OFFLINE, ctc=True)
    runner = TorchClipRunner(net, LogMel(net.config.mel), torch.device(device), torch.float32)
    clips = [clip(length) for length in (1600, 48_000, 9000, 32_000, 16_000, 20_000)]
    together = transcribe_clips(runner, clips, batch_seconds=4.0)
    alone = [transcribe_clips(runner, [single])[0] for single in clips]
    ids = [[[token.id for token in tokens] for tokens in found] for found in (together, alone)]
    assert ids[0] == ids[1]
    assert any(ids[0])


def test_prefetch_produces_ahead() -> None:
    produced = []

    def numbers() -> Iterator[int]:
        for number in range(1, 5):
            produced.append(number)
            yield number

    prefetched = prefetch(numbers(), "numbers")
    assert next(prefetched) == 1
    assert [1, *prefetched] == [1, 2, 3, 4]
    assert produced == [1, 2, 3, 4]


def test_prefetch_raises_errors_of_its_thread() -> None:
    with pytest.raises(ZeroDivisionError):
        list(prefetch((1 // n for n in (1, 0)), "fails"))
