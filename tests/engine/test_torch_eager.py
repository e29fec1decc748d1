"""The GPU's code paths for clips, run on the CPU and compared with the plain modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from conure.audio.features import LogMel
from conure.engine.backends.torch_eager.clip_runner import SUBSAMPLING_STEPS, TorchClipRunner
from conure.models.config import AttentionContext, EncoderConfig
from conure.models.preemptible import run_to_end
from tests.models.networks import OFFLINE, STREAMING, network

LOCAL = replace(OFFLINE, local=True, contexts=(AttentionContext(20, 20),))
ENCODERS = pytest.mark.parametrize("encoder", [OFFLINE, LOCAL, STREAMING], ids=["offline", "local", "causal"])
STEP = 1280
"""Samples of an encoder step."""


def runner(encoder: EncoderConfig, folded: bool, compiled: bool = False) -> TorchClipRunner:
    net = network(encoder, prompts=3)
    log_mel = LogMel(replace(net.config.mel, normalize="per_feature"))
    return TorchClipRunner(net, log_mel, torch.device("cpu"), folded=folded, compiled=compiled)


def noise(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    samples = torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(5)) * 0.1
    for row, length in zip(samples, lengths, strict=True):
        row[length:] = 0.0
    return samples, torch.tensor(lengths)


class NoSynchronisation(TorchDispatchMode):
    """Fails on operations that would synchronise with a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}, name
        return func(*args, **kwargs or {})


@ENCODERS
@pytest.mark.parametrize("max_length", [1600, 10 * STEP - 1, 10 * STEP + 1, 16 * STEP, 16 * STEP + 159, 300 * STEP])
def test_folded_and_bucketed_equals_modules(encoder: EncoderConfig, max_length: int) -> None:
    samples, lengths = noise([max_length, max_length * 2 // 3, 1600])
    prompts = torch.tensor([0, 2, 1])
    got, counts = run_to_end(runner(encoder, folded=True).encode(samples, lengths, prompts))
    expected, expected_counts = run_to_end(runner(encoder, folded=False).encode(samples, lengths, prompts))
    assert counts.tolist() == expected_counts.tolist()
    assert got.shape[1] % 8 == 0
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(got[row, :count], expected[row, :count], atol=5e-5, rtol=0)


@ENCODERS
@pytest.mark.parametrize("steps", [40, SUBSAMPLING_STEPS + 20])
def test_encoding_does_not_synchronise(encoder: EncoderConfig, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogMel, "log_mel", LogMel.log_mel_reference)  # as on a GPU
    gpu_runner = runner(encoder, folded=True)
    samples, lengths = noise([steps * STEP, 20 * STEP])
    with NoSynchronisation():
        encoded, _ = run_to_end(gpu_runner.encode(samples, lengths, torch.tensor([0, 1])))
    assert encoded.isfinite().all()


def test_compiled_equals_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and decomposes the layers, where errors are likely; compiling them by C++ would take a minute."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager", fullgraph=True))
    samples, lengths = noise([20 * STEP, 9 * STEP])
    got, counts = run_to_end(runner(OFFLINE, folded=True, compiled=True).encode(samples, lengths))
    expected, _ = run_to_end(runner(OFFLINE, folded=True).encode(samples, lengths))
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(got[row, :count], expected[row, :count], atol=5e-5, rtol=0)
