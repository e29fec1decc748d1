"""Optimised paths of the encoder have the results of the reference path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from conure.models import conformer
from conure.models.config import AttentionContext
from conure.models.conformer import Encoder
from conure.models.folded_encoder import FoldedEncoder
from conure.models.network import Prompt
from tests.models.networks import OFFLINE, STREAMING, mel, network


@pytest.mark.parametrize("encoder", [OFFLINE, STREAMING], ids=["offline", "causal"])
@torch.inference_mode()
def test_clips_of_a_batch_equal_each_alone(encoder) -> None:
    net = network(encoder)
    whole, lengths = mel([411, 200, 97, 8, 1])
    encoded, counts = net.encode(whole, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, count = net.encode(whole[row : row + 1, :length], lengths[row : row + 1])
        assert count[0] == counts[row] == alone.shape[1]
        torch.testing.assert_close(encoded[row, : counts[row]], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", [OFFLINE, STREAMING], ids=["offline", "causal"])
@pytest.mark.parametrize("steps", [1, 3, 16])
@torch.inference_mode()
def test_subsampling_in_chunks_equals_whole(encoder, steps: int) -> None:
    net = network(encoder)
    whole, lengths = mel([411, 200, 97, 8, 1])
    expected, counts = net.encoder.pre_encode(whole, lengths)
    chunked, chunked_counts = net.encoder.pre_encode.in_chunks(whole, lengths, steps)
    assert counts.tolist() == chunked_counts.tolist()
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(chunked[row, :count], expected[row, :count], atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [1, 4, 100])
@torch.inference_mode()
def test_local_attention_equals_full_attention_under_a_band(window: int) -> None:
    contexts = (AttentionContext(window, window),)
    local = network(replace(OFFLINE, local=True, contexts=contexts))
    banded = network(replace(OFFLINE, local=False, contexts=contexts))
    whole, lengths = mel([411, 200, 97, 8])
    got, counts = local.encode(whole, lengths)
    expected, _ = banded.encode(whole, lengths)
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(got[row, :count], expected[row, :count], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "form", [Encoder.__call__, lambda net, *given: FoldedEncoder(net)(*given)], ids=["plain", "folded"]
)
@torch.inference_mode()
def test_long_clips_use_local_attention(form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformer, "MAX_FULL_ATTENTION_STEPS", 51)
    monkeypatch.setattr(conformer, "LONG_CONTEXT", AttentionContext(4, 4))
    full = network(OFFLINE).encoder
    local = network(replace(OFFLINE, local=True, contexts=(AttentionContext(4, 4),))).encoder
    for lengths, expected in (([408, 200], full), ([409, 200], local)):
        whole, frames = mel(lengths)
        got, counts = form(full, whole, frames)
        steps, _ = expected(whole, frames)
        for row, count in enumerate(counts.tolist()):
            torch.testing.assert_close(got[row, :count], steps[row, :count], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_limited_contexts_are_unchanged_in_long_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(STREAMING)
    whole, frames = mel([411])
    expected, _ = net.encode(whole, frames)
    monkeypatch.setattr(conformer, "MAX_FULL_ATTENTION_STEPS", 10)
    assert torch.equal(net.encode(whole, frames)[0], expected)


@torch.inference_mode()
def test_prompt_table_equals_a_one_hot_input() -> None:
    torch.manual_seed(0)
    prompt = Prompt(8, 5)
    encoded, slots = torch.randn(2, 7, 8), torch.tensor([4, 1])
    one_hot = F.one_hot(slots, 5).float()[:, None].expand(-1, 7, -1)
    expected = prompt.linear2(F.relu(prompt.linear1(torch.cat([encoded, one_hot], -1))))
    torch.testing.assert_close(prompt(encoded, slots), expected)


@torch.inference_mode()
def test_a_batch_in_half_precision_has_no_nan() -> None:
    net = network(STREAMING).bfloat16()
    whole, lengths = mel([100, 1])
    assert net.encode(whole.bfloat16(), lengths)[0].isfinite().all()


def test_every_parameter_is_trained() -> None:
    net = network(OFFLINE, predictor_width=16, predictor_layers=1, joint_width=16, durations=(0, 1, 2), ctc=True)
    whole, lengths = mel([80])
    encoded, _ = net.encode(whole, lengths)
    outputs, _ = net.predictor(torch.tensor([[net.config.blank, 3]]))
    logits = net.joint.combine(
        net.joint.project_encoder(encoded)[:, :, None], net.joint.project_predictor(outputs)[:, None]
    )
    (logits.square().sum() + net.ctc_head(encoded).square().sum()).backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
