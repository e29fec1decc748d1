"""Batches that do not fit the device's memory."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from conure.audio.features import LogMel
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.lanes import clips
from conure.engine.lanes.clips import transcribe_batch, transcribe_clips
from conure.errors import OutOfMemory
from conure.models.preemptible import run_to_end
from tests.engine.scarce import RATE, ScarceRunner
from tests.models.networks import OFFLINE, network


@pytest.fixture(scope="module")
def runner() -> ClipRunner:
    net = network(OFFLINE, ctc=True)
    return TorchClipRunner(net, LogMel(net.config.mel), torch.device("cpu"))


def noises(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, round(long * RATE)).astype(np.float32) for long in seconds]


def labels(tokens: list[EmittedToken] | OutOfMemory) -> list[tuple[int, int]]:
    assert not isinstance(tokens, OutOfMemory)
    return [(token.id, token.step) for token in tokens]


def test_halves_give_the_tokens_of_the_whole_batch(runner: ClipRunner) -> None:
    batch, missing = noises(4, 3, 4, 1, 2, 4, 3), list[float]()
    expected = run_to_end(transcribe_batch(runner, batch))
    found = run_to_end(transcribe_batch(ScarceRunner(runner, 9.0), batch, on_out_of_memory=missing.append))
    assert [labels(tokens) for tokens in found] == [labels(tokens) for tokens in expected]
    assert any(labels(tokens) for tokens in found)
    assert missing == [28.0, 12.0, 16.0]


def test_a_clip_that_does_not_fit_alone_raises(runner: ClipRunner) -> None:
    batch = noises(1, 20, 2)
    found = run_to_end(transcribe_batch(ScarceRunner(runner, 9.0), batch))
    assert isinstance(found[1], OutOfMemory)
    assert "a clip of 20 s" in found[1].message
    assert found[1].hint
    for row in (0, 2):
        assert labels(found[row]) == labels(run_to_end(transcribe_batch(runner, [batch[row]]))[0])
    with pytest.raises(OutOfMemory, match="a clip of 20 s"):
        transcribe_clips(ScarceRunner(runner, 9.0), batch)


def test_a_batch_is_freed_before_its_halves_run(runner: ClipRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[bool] = []
    subsample = runner.network.encoder.subsample  # type: ignore[attr-defined]

    def watched(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, counts = subsample(*inputs)
        held.append(weakref.ref(x))
        return x, counts

    monkeypatch.setattr(runner.network.encoder, "subsample", watched)  # type: ignore[attr-defined]
    monkeypatch.setattr(clips, "release_cached_memory", lambda: left.append(held[-1]() is not None))
    run_to_end(transcribe_batch(ScarceRunner(runner, 9.0), noises(5, 5)))
    assert left == [False]


def test_other_errors_are_not_taken_for_out_of_memory(runner: ClipRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(runner, "encode", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_to_end(transcribe_batch(runner, noises(1, 1)))
