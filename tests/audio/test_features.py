"""Log-mel features: chunk by chunk equals the whole clip, and results at edge lengths are finite."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from conure.audio import features
from conure.audio import mel as mel_module
from conure.audio.features import LogMel
from conure.audio.mel import MelConfig, MelExtractor
from conure.audio.stream_features import MelStream
from conure.native.library import has_native_kernels


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("features", [80, 128])
@pytest.mark.parametrize("sizes", [(1,), (160,), (7, 333, 1280), (100_000,)])
def test_chunk_by_chunk_equals_the_whole(features: int, sizes: tuple[int, ...]) -> None:
    front = MelExtractor(MelConfig(features=features, normalize="NA"))
    samples = noise(16_123 if sizes != (1,) else 700).numpy()
    whole, frames = front(samples[None], np.array([len(samples)]))
    stream, parts, at, rng = MelStream(front), [], 0, random.Random(0)
    while at < len(samples):
        size = rng.choice(sizes)
        parts.append(stream.push(samples[at : at + size], last=at + size >= len(samples)))
        at += size
    got = np.concatenate(parts)
    assert got.shape == (frames[0], features)
    np.testing.assert_allclose(got, whole[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("normalize", ["per_feature", "all_features", "NA"])
def test_arrays_and_tensors_have_the_same_features(
    normalize: str, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the reference implementation in torch is used."""
    if not kernels:
        monkeypatch.setattr(mel_module, "has_native_kernels", lambda: False)
    config = MelConfig(normalize=normalize)
    arrays, tensors = MelExtractor(config), LogMel(config)
    monkeypatch.setattr(tensors, "log_mel", tensors.log_mel_reference)
    samples, lengths = torch.stack([noise(48_000, seed) for seed in range(3)]), torch.tensor([48_000, 9_999, 100])
    got, expected = arrays(samples.numpy(), lengths.numpy()), tensors(samples, lengths)
    assert got[1].tolist() == expected[1].tolist()
    np.testing.assert_allclose(got[0], expected[0], atol=5e-4, rtol=0)
    spans, known = samples[:, :5000], torch.tensor([5000, 3000, 1])
    got_spans, expected_spans = arrays.extract_spans(spans.numpy(), known.numpy()), tensors.extract_spans(spans, known)
    np.testing.assert_allclose(got_spans, expected_spans, atol=5e-4, rtol=0)


@pytest.mark.parametrize("normalize", ["per_feature", "all_features", "NA"])
def test_clips_of_a_batch_equal_each_alone(normalize: str) -> None:
    front = LogMel(MelConfig(normalize=normalize))
    lengths = torch.tensor([16_000, 9_999, 320, 160, 100])
    samples = torch.stack([noise(16_000, seed) for seed in range(5)])
    mel, frames = front(samples, lengths)
    assert frames.tolist() == [100, 62, 2, 1, 0]
    assert mel.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        alone, _ = front(samples[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(mel[row, : frames[row]], alone[0, : frames[row]], atol=1e-5, rtol=0)
        assert mel[row, frames[row] :].eq(0).all()


def test_a_clip_without_samples_has_no_frames() -> None:
    mel, frames = MelExtractor(MelConfig())(np.zeros((1, 0), np.float32), np.array([0]))
    assert frames.tolist() == [0]
    assert not mel.any()


def test_a_checkpoints_own_window_and_filterbank_are_used() -> None:
    config = MelConfig(normalize="NA")
    samples, lengths = noise(1600)[None], torch.tensor([1600])
    doubled = LogMel(config, filterbank=LogMel(config).filterbank * 2)
    rfft = LogMel(config)
    guard = config.log_guard
    expected = ((rfft(samples, lengths)[0].exp() - guard) * 2 + guard).log()
    torch.testing.assert_close(doubled(samples, lengths)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.skipif(not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI")
@pytest.mark.parametrize("features", [80, 128])
@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 16), (3, 7), (5, 40)])
@pytest.mark.parametrize("loudness", [0.0, 1e-4, 0.1, 1.0])
def test_the_kernel_equals_the_reference(features: int, rows: int, frames: int, loudness: float) -> None:
    front = LogMel(MelConfig(features=features))
    samples = noise(rows * (512 + 160 * (frames - 1))).view(rows, -1) * 10 * loudness
    got, expected = front.log_mel(samples), front.log_mel_reference(samples)
    assert got.shape == (rows, frames, features)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.skipif(not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI")
def test_the_kernel_finds_the_band_of_a_tone() -> None:
    front = LogMel(MelConfig())
    time = torch.arange(512) / 16_000
    for hertz in (125, 1000, 5000):
        tone = torch.sin(2 * torch.pi * hertz * time)[None]
        assert front.log_mel(tone).argmax() == front.log_mel_reference(tone).argmax()


@pytest.mark.skipif(not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI")
def test_the_kernel_uses_a_checkpoints_own_window_and_filterbank() -> None:
    config = MelConfig()
    filters = torch.zeros(80, 257)
    filters[3, 10:20], filters[4, 256], filters[5] = 1.0, 2.0, 0.5
    front = LogMel(config, torch.rand(400, generator=torch.Generator().manual_seed(1)), filters)
    samples = noise(512 + 1600)[None]
    torch.testing.assert_close(front.log_mel(samples), front.log_mel_reference(samples), atol=1e-4, rtol=0)


def test_float64_does_not_use_the_kernel() -> None:
    front, samples = LogMel(MelConfig()), noise(512 + 1600)[None]
    expected = front.log_mel(samples)
    torch.testing.assert_close(front.double().log_mel(samples.double()).float(), expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 21])
def test_spectra_in_buckets_equal_those_of_one_batch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_FFT_FRAMES", 8)
    sizes, rfft, frames = [], torch.fft.rfft, torch.randn(count, 512)
    monkeypatch.setattr(torch.fft, "rfft", lambda part: sizes.append(len(part)) or rfft(part))
    torch.testing.assert_close(features._spectra_in_buckets(frames), rfft(frames))
    assert set(sizes) <= {1, 2, 4, 8}
